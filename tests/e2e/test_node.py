"""A coordinator driven from another language: examples/node, over a connection that is cut."""

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from e2e.processes import ROOT, Programs, connected, fedstep
from faults.proxy import proxy
from safetensors.torch import load_file

from contract.postgres import MUST_RUN

pytestmark = pytest.mark.slow
EXAMPLE = ROOT / "examples" / "node"
PATIENCE_S = 100


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example beside the protocol, with its packages."""
    if missing := [program for program in ("node", "npm") if shutil.which(program) is None]:
        why = f"{' and '.join(missing)} cannot be found on this machine: apt install nodejs npm"
        pytest.fail(why) if "node" in os.environ.get(MUST_RUN, "") else pytest.skip(why)
    shutil.copytree(EXAMPLE, tmp_path / "node", ignore=shutil.ignore_patterns("node_modules"))
    return tmp_path / "node"


async def run(*words: str | Path, cwd: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*map(str, words), cwd=cwd, stdout=PIPE, stderr=STDOUT)


async def test_node_creates_watches_is_cut_off_resumes_and_downloads(
    example: Path, programs: Programs, tmp_path: Path
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        installing = await run("npm", "ci", "--no-audit", "--no-fund", cwd=example)
        said, _ = await installing.communicate()
        assert installing.returncode == 0, said.decode()
        _, address = programs.coordinator(tmp_path / "data")
        connected(*[programs.client(address, f"c{i}", "--partition", f"{i}/8") for i in (1, 2)])
        events: list[tuple[int, str]] = []
        others: list[str] = []
        async with proxy(address) as between:
            options = ("--coordinator", between.address, "--protos", ROOT / "proto", "--output", "model.safetensors")
            node = await run("node", "tune.js", *options, cwd=example)
            assert node.stdout is not None
            while line := (await node.stdout.readline()).decode():
                words = line.split("\t")
                if len(words) == 3:
                    events.append((int(words[0]), words[1]))
                    if len(events) == 4:
                        between.cut()
                    if len(events) == 12:
                        await between.away(3)
                else:
                    others.append(line)
            assert await node.wait() == 0, others
    assert sum(line.startswith("Lost the coordinator") for line in others) == 2, others
    watching = ("study", "watch", "from-node", "--coordinator", address, "--json")
    *told, study = (await asyncio.to_thread(fedstep, *watching)).json
    assert events == [(int(event["number"]), event["kind"]) for event in told]
    assert events[-1][1] == "study_completed"
    ours, theirs = load_file(example / "model.safetensors"), load_file(study["result"]["model_path"])
    assert {name: tensor.tolist() for name, tensor in ours.items()} == {n: t.tolist() for n, t in theirs.items()}
    assert "its SHA-256 is as it should be" in others[-1]
