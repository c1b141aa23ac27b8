"""The commands that steer studies and clients and fetch models, as somebody types them."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
import torch
from e2e.processes import Programs, Ran, connected, environment, fedstep
from e2e.studies import write_study
from safetensors.torch import load_file

from fedstep.client.tasks.digits import task as digits

# As `fedstep` runs it, also where it is not installed yet.
RUN = """
import sys
from importlib.metadata import EntryPoint
from fedstep.common import cli
known = cli._found()
PLACES = {"model": "fedstep.server.cli.model:model", "completion": "fedstep.common.completion:completion"}
for name, place in PLACES.items():
    known[name] = EntryPoint(name, place, "fedstep.commands")
cli._found = lambda: known
cli.main()
"""


def command(*arguments: str | Path) -> Ran:
    """A command of this source tree's, to its end."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A coordinator with two clients, and a study `first` that has ended."""
    folder = tmp_path_factory.mktemp("verbs")
    with Programs(folder / "logs") as programs:
        _, where = programs.coordinator(folder / "data")
        connected(*[programs.client(where, f"c{i}", "--partition", f"{i}/8") for i in (1, 2)])
        file = study(folder / "first.toml", name="first")
        ran = fedstep("study", "run", file, "--coordinator", where)
        assert ran.code == 0, ran.err
        yield where


def study(path: Path, **changes: object) -> Path:
    tables = {"task": "digits", "round": {"min_clients": 2, "cohort_size": 2}, "budget": {"trials": 2}}
    return write_study(path, **{**tables, **changes})


def told(ran: Ran) -> str:
    """What a command that failed said: one sentence."""
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith("fedstep: ")
    assert ran.err.count("\n") == 1
    return ran.err


def test_a_study_is_paused_and_resumed(address: str, tmp_path: Path) -> None:
    file = study(tmp_path / "long.toml", name="long", budget={"trials": 1, "rounds_per_trial": 300})
    assert fedstep("study", "run", file, "--detach", "--coordinator", address).code == 0
    ran = fedstep("study", "pause", "long", "--coordinator", address)
    assert ran.out.startswith("Study long is paus")
    assert ran.out.endswith("Go on: fedstep study resume long.\n")
    watched = fedstep("study", "watch", "long", "--coordinator", address)
    assert "Study long is paused; go on with it: fedstep study resume long." in watched.out
    assert watched.code == 1
    assert "paused" in fedstep("study", "list", "--coordinator", address).out
    ran = fedstep("study", "resume", "long", "--coordinator", address)
    assert ran.out == "Study long goes on. Watch it: fedstep study watch long.\n"
    assert fedstep("study", "stop", "long", "--coordinator", address).code == 0
    watched = fedstep("study", "watch", "long", "--coordinator", address, "--json")
    assert watched.json[-1]["state"] == "STUDY_STATE_STOPPED"
    assert "has ended (stopped)" in told(fedstep("study", "resume", "long", "--coordinator", address))


def test_a_client_is_drained_and_undrained(address: str) -> None:
    ran = fedstep("fleet", "drain", "c1", "--coordinator", address)
    assert ran.out.startswith("Client c1 is given nothing new; it "), ran
    assert "drained: it is given nothing new" in fedstep("fleet", "list", "--coordinator", address).out
    assert fedstep("fleet", "undrain", "c1", "--coordinator", address).out == "Client c1 is given work again.\n"
    assert "drained" not in fedstep("fleet", "list", "--coordinator", address).out
    assert "The client 'c3' has never come: `fedstep fleet list` shows" in told(
        fedstep("fleet", "drain", "c3", "--coordinator", address)
    )


@pytest.mark.parametrize("as_csv", [True, False])
def test_everything_of_a_study_is_exported(address: str, tmp_path: Path, as_csv: bool) -> None:
    folder = tmp_path / "out"
    options = ["--csv"] if as_csv else []
    ran = fedstep("study", "export", "first", "--output", folder, "--coordinator", address, *options, "--json")
    assert ran.code == 0, ran.err
    files = {path.name for path in folder.iterdir()}
    assert set(ran.json[0]["files"]) == files
    assert files >= {"spec.json", "study.json", "participation.json"}
    assert json.loads((folder / "spec.json").read_text())["name"] == "first"
    assert json.loads((folder / "study.json").read_text())["result"]["model_sha256"]
    rows = {}
    for kind in ("trials", "events", "steps"):
        with (folder / f"{kind}.{'csv' if as_csv else 'jsonl'}").open(newline="") as file:
            rows[kind] = list(csv.DictReader(file)) if as_csv else [json.loads(line) for line in file]
    assert len(rows["trials"]) == 2
    events = fedstep("study", "watch", "first", "--coordinator", address, "--json").json[:-1]
    assert [int(row["number"]) for row in rows["events"]] == [int(event["number"]) for event in events]
    steps = fedstep("study", "steps", "first", "--coordinator", address).out.splitlines()
    if as_csv:
        assert (folder / "steps.csv").read_text().splitlines() == steps
        assert float(rows["trials"][0]["lr"]) > 0
        assert (folder / "left_out.csv").read_text().startswith("client,asked")
    else:
        assert sum(len(row["steps"]["loss"]) for row in rows["steps"]) == len(steps) - 1
    again = fedstep("study", "export", "first", "--output", folder, "--coordinator", address)
    assert "out is there already and not empty: give another folder with --output" in told(again)


def test_a_model_is_downloaded_and_its_network_with_it(address: str, tmp_path: Path) -> None:
    where = ("--coordinator", address)
    path = tmp_path / "model.safetensors"
    ran = command("model", "download", "first", "--output", path, *where, "--json")
    assert ran.code == 0, ran.err
    shown = fedstep("study", "show", "first", *where, "--json").json[0]
    assert ran.json[0]["path"] == str(path)
    assert load_file(path).keys() == load_file(shown["result"]["model_path"]).keys()
    traced = tmp_path / "model.pt"
    ran = command("model", "download", "first", "--format", "torchscript", "--output", traced, *where)
    assert ran.code == 0, ran.err
    assert f"{traced}: " in ran.out
    network = digits.build_model({})
    network.load_state_dict(load_file(path))
    samples = digits.load_held_out({})
    assert samples is not None
    inputs = torch.stack([samples[k][0] for k in range(7)])
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(str(traced))(inputs), network.eval()(inputs))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pt", "model.safetensors"]
    wrong = ("--format", "torchscript", "--task", "no.py", "--output", traced)
    assert "no.py" in told(command("model", "download", "first", *wrong, *where))
    assert "64 hexadecimal digits" in told(command("model", "download", "first", "--digest", "12", *where))
    said = told(command("model", "download", "first", "--output", tmp_path / "no" / "m", *where))
    assert "no/m cannot be written (no such file or directory): give another path" in said
    assert "other" in told(command("model", "download", "other", *where))


def test_onnx_gives_what_the_network_gives_on_any_number_of_samples(address: str, tmp_path: Path) -> None:
    onnx, plain = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    where = ("--coordinator", address)
    for path, format_ in ((onnx, "onnx"), (plain, "safetensors")):
        ran = command("model", "download", "first", "--format", format_, "--output", path, *where)
        assert ran.code == 0, ran.err
    network = digits.build_model({})
    network.load_state_dict(load_file(plain))
    samples = digits.load_held_out({})
    assert samples is not None
    inputs = torch.stack([samples[k][0] for k in range(7)])
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(given), network.eval()(inputs), atol=1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_completion(shell: str) -> None:
    ran = command("completion", shell)
    assert ran.code == 0, ran.err
    assert "_FEDSTEP_COMPLETE" in ran.out


def test_what_the_script_asks_for_is_answered() -> None:
    """As bash asks after `fedstep study pa<TAB>`."""
    asked = {"_FEDSTEP_COMPLETE": "bash_complete", "COMP_WORDS": "fedstep study pa", "COMP_CWORD": "2"}
    answered = fedstep(variables=asked)
    assert answered.out.split() == ["plain,pause"]
