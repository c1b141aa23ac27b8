"""The paper's studies: each is one, and every command of their page runs. Small here, on data of a few kilobytes."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from e2e.processes import fedstep as fedstep_program
from unit.client.image_files import write_batch
from unit.client.leaf_files import write_leaf

from fedstep.common.cli import fedstep
from fedstep.common.study_file import read_study
from fedstep.server.aggregation.registry import validate_aggregator
from fedstep.server.selection.registry import validate_selector
from fedstep.server.tuning.registry import validate_tuner

ROOT = Path(__file__).resolve().parents[3]
PAPER = ROOT / "examples" / "paper"
SHARED = ROOT.parent / "shared" / "data"
FENCE = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
CLIENTS = 6
SMALL = {
    "--clients": str(CLIENTS),
    "--seeds": "1",
    "--budget": "2",
    "--budgets": "2",
    "--trial-rounds": "1",
}
"""Options whose values are made small; what else a command says stays."""


def commands(*names: str) -> list[str]:
    """The lines of the page's shell blocks that call one of fedstep's commands."""
    blocks = FENCE.findall((PAPER / "README.md").read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(tuple(f"fedstep {name} " for name in names))]


def shrunk(study: Path, folder: Path) -> Path:
    """A copy of a study with cohorts of two and two rounds."""
    sizes = {"cohort_size": 2, "min_clients": 2, "rounds": 2, "rounds_per_trial": 1}
    text = study.read_text(encoding="utf-8")
    for key, size in sizes.items():
        text = re.sub(rf"^{key} = \d+", f"{key} = {size}", text, flags=re.M)
    copy = folder / study.name
    copy.write_text(text, encoding="utf-8")
    return copy


def small(line: str, folder: Path) -> list[str]:
    """The same command with little to do, on data that are made up."""
    words = iter(shlex.split(line)[1:])
    command, study = next(words), ROOT / next(words)
    made = [command, str(shrunk(study, folder)), "--data", str(data_for(study, folder))]
    if study.name.startswith("femnist"):
        made += ["--option", f"cache={folder / 'cache'}"]
    elif study.name.startswith("cifar10"):
        made += ["--option", "verify=false"]
    for option, value in pairs(words):
        if option in ("--data", "--out") or value in ("verify=false", "download=true"):
            continue
        made += [option, SMALL.get(option, str(ROOT / value) if option == "--task" else value)]
    return made


def pairs(words: Iterator[str]) -> Iterator[tuple[str, str]]:
    for option in words:
        yield option, next(words)


def data_for(study: Path, folder: Path) -> Path:
    """Six writers of eight characters, or sixty images."""
    if study.name.startswith("writers"):
        owners, images = np.repeat(np.arange(CLIENTS + 60), 8), np.zeros((8 * (CLIENTS + 60), 28, 28), np.uint8)
        np.savez(folder / "writers.npz", images=images, labels=owners % 10, writer_ids=owners.astype(np.int32))
        return folder / "writers.npz"
    if study.name.startswith("femnist"):
        write_leaf(folder / "data" / "train" / "some.json", {f"w{number}": 8 for number in range(CLIENTS)})
        write_leaf(folder / "data" / "test" / "some.json", {f"w{number}": 2 for number in range(CLIENTS)})
        return folder / "data"
    for name, samples in (("data_batch_1", 60), ("test_batch", 20)):
        write_batch(folder / "data" / "cifar-10-batches-py" / name, samples)
    return folder / "data"


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.toml")), ids=lambda path: path.name)
def test_every_study_is_one_and_is_spoken_of(path: Path) -> None:
    spec = read_study(path)
    validate_tuner(spec)
    validate_selector(spec.selector)
    validate_aggregator(spec.aggregator)
    assert f"examples/paper/{path.name}" in "\n".join(commands("simulate", "compare", "demo"))


def test_the_page_has_the_experiments_that_the_paper_puts_first() -> None:
    lines = commands("compare")
    assert any("femnist.toml" in line and "random" in line for line in lines)
    assert any("--selectors" in line and "--slow-share" in line for line in lines)
    assert any("leg_least" in line for line in lines)


@pytest.mark.timeout(330)
@pytest.mark.parametrize("line", [line for line in commands("simulate", "compare") if "femnist" not in line])
def test_every_simulation_of_a_small_network_runs(line: str, tmp_path: Path) -> None:
    run_small(line, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(330)
@pytest.mark.parametrize("line", [line for line in commands("simulate", "compare") if "femnist" in line])
def test_every_simulation_of_leafs_network_runs(line: str, tmp_path: Path) -> None:
    run_small(line, tmp_path)


def run_small(line: str, folder: Path) -> None:
    words = small(line, folder)
    if words[0] == "compare":
        words += ["--out", str(folder / "out"), "--jobs", "1"]  # one process: this one
    result = CliRunner().invoke(fedstep, words)
    assert result.exit_code == 0, result.output
    if words[0] == "compare":
        table = (folder / "out" / "table.md").read_text(encoding="utf-8")
        tuners, selectors = (words[words.index(o) + 1] if o in words else "" for o in ("--tuners", "--selectors"))
        wanted = len(re.findall(r",(?![^{]*})", tuners)) + 1
        assert table.count("\n| `") == wanted * (selectors.count(",") + 1)
    else:
        assert "Final model on held-out data" in result.output


@pytest.mark.slow
@pytest.mark.timeout(330)
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[pytest.mark.exhaustive] if number else [])
        for number, line in enumerate(commands("demo"))
    ],
)
def test_every_study_over_the_network_runs(line: str, tmp_path: Path) -> None:
    ran = fedstep_program(*small(line, tmp_path), "--data-dir", tmp_path / "out", "--json", timeout_s=300)
    assert ran.code == 0, ran.err
    assert ran.json[-1]["state"] == "STUDY_STATE_COMPLETED"
    assert ran.json[-1]["result"]["held_out"] is True


@pytest.mark.slow
@pytest.mark.timeout(330)
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize("name", ["femnist", "femnist_trials", "cifar10", "cifar10_trials"])
def test_the_real_data_go_through_the_tuner(name: str, tmp_path: Path) -> None:
    data, option = SHARED / "leaf", f"cache={tmp_path / 'cache'}"
    if name.startswith("cifar10"):
        shutil.unpack_archive(SHARED / "cifar10_lossless4k_py.tar.gz", tmp_path)
        data, option = tmp_path, "verify=false"
    study = shrunk(PAPER / f"{name}.toml", tmp_path)
    words = ["simulate", str(study), "--clients", "30", "--data", str(data), "--option", option, "--json"]
    result = CliRunner().invoke(fedstep, words)
    assert result.exit_code == 0, result.output
    *_, study_said, run_said = (json.loads(line) for line in result.output.splitlines() if line.startswith("{"))
    assert study_said["result"]["held_out"] is True
    assert run_said["rounds"] >= 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_the_data_that_are_named_are_there() -> None:
    named = re.findall(r"\.\./shared/data/([\w./]+)", (PAPER / "README.md").read_text(encoding="utf-8"))
    assert {name for name in named if not (SHARED / name).exists()} == set()
    assert {"leaf", "cifar10_lossless4k_py.tar.gz"} <= set(named)
