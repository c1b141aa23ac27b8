import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from unit.simulation import kit

from fedstep.common.errors import InvalidInputError
from fedstep.simulation.cli import simulate
from fedstep.simulation.compare_cli import compare


def test_it_shows_every_round_and_the_result(study_file: Path) -> None:
    result = CliRunner().invoke(simulate, [str(study_file), "--clients", "6"])
    assert result.exit_code == 0
    for said in ("Trial 1 round 0: accuracy", "s: completed", "Final model on held-out data", "2 rounds,"):
        assert said in result.output


def test_as_json_every_line_is_an_object_and_the_seed_decides(study_file: Path) -> None:
    arguments = [str(study_file), "--clients", "6", "--json", "--seed"]
    first, again, other = (
        [json.loads(line) for line in CliRunner().invoke(simulate, [*arguments, seed]).output.splitlines()]
        for seed in ("1", "1", "2")
    )
    assert first[-1]["rounds"] == 2
    assert first[-1]["virtual_seconds"] > 0
    assert first[-2]["result"]["metrics"] == again[-2]["result"]["metrics"]
    assert first[-2]["best_trial"]["hyperparameters"] != other[-2]["best_trial"]["hyperparameters"]
    assert {line["kind"] for line in first[:-2]} >= {"round_committed", "study_completed"}


def test_the_model_and_the_picture_are_written_where_asked(study_file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(simulate, [str(study_file), "--clients", "6", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out" / "s").iterdir()) == [
        "model.safetensors",
        "report",
        "report.html",
        "study.png",
    ]


def test_a_study_that_does_not_complete_exits_with_one(study_file: Path) -> None:
    study_file.write_text(kit.STUDY.replace("cohort_size = 3", 'deadline = "1ms"'))
    result = CliRunner().invoke(simulate, [str(study_file), "--clients", "6"])
    assert result.exit_code == 1
    assert "missed its quorum" in result.output
    assert "again to go on" not in result.output


OWN_TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from fedstep.common.task import ClientData, Task

class Own(Task):
    name = "own"

    def build_model(self, hyperparameters):
        return nn.Linear(4, 2)

    def load_data(self, client):
        return ClientData(self.samples(), self.samples())

    def samples(self):
        return TensorDataset(torch.randn(20, 4), torch.randint(2, (20,)))
"""


@pytest.mark.parametrize(
    ("fault", "said", "code"),
    [
        ("def samples(self): return TensorDataset(torch.randn(20, 5), torch.zeros(20))", "RuntimeError: mat1 and", 1),
        ("def loss(self, model, batch): return None", "The loss() of the task own returned None", 1),
        ("def loss(self, model, batch): return model(batch[0])", " numbers: let it return a tensor of one number", 1),
        ("def loss(self, model, batch): return torch.ones(1)", "returned a tensor without a gradient", 1),
        ("def loss(self, model): ...", "given (fedstep's local_run.py", 1),
        ("def metrics(self, model, batch): return {}['x']", "could not be measured: client-", 1),
        ("def metrics(self, model, batch): return None", "metrics() of the task own returned None", 1),
        ("def loss(self, model, batch): exit(3)", "SystemExit: 3 (own.py", 1),
        ("def load_held_out(self, options): return {}['x']", "cannot load its held-out data: KeyError: 'x' (own.py", 0),
    ],
)
def test_what_a_task_of_ones_own_raises_is_a_sentence(
    study_file: Path, tmp_path: Path, fault: str, said: str, code: int
) -> None:
    study_file.write_text(kit.STUDY.replace("digits", "own"))
    (tmp_path / "own.py").write_text(f"{OWN_TASK}\n    {fault}\n")
    result = CliRunner().invoke(simulate, [str(study_file), "--task", str(tmp_path / "own.py"), "--clients", "6"])
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output
    assert ("Mend what they say, in the task or in its data" in result.output) is bool(code)


def test_an_error_that_passes_interrupts_nothing_though_there_is_one_client_only(
    study_file: Path, tmp_path: Path
) -> None:
    study_file.write_text(kit.STUDY.replace("digits", "own"))
    odd = """
    measured = 0

    def metrics(self, model, batch):
        self.measured += 1
        if self.measured == 1:
            raise OSError("the disk is away")
        return {"loss": 1.0, "accuracy": 0.5}
"""
    (tmp_path / "own.py").write_text(OWN_TASK + odd)
    arguments = [str(study_file), "--task", str(tmp_path / "own.py"), "--clients", "1"]
    result = CliRunner().invoke(simulate, arguments)
    assert result.exit_code == 0, result.output
    assert "OSError: the disk is away (own.py" in result.output


def test_clients_that_cannot_measure_are_not_asked_again(study_file: Path, tmp_path: Path) -> None:
    """One measures, out of six of whom only the last one can."""
    study_file.write_text(kit.STUDY.replace("digits", "own") + "\n[evaluation]\ncohort_size = 2\n")
    odd = """
    def load_data(self, client):
        data = self.samples()
        data.tensors[0][:] = client.name == "client-5"
        return ClientData(self.samples(), data)

    def metrics(self, model, batch):
        return {"loss": 1.0 / float(batch[0].max()), "accuracy": 0.5}
"""
    (tmp_path / "own.py").write_text(OWN_TASK + odd)
    arguments = [str(study_file), "--task", str(tmp_path / "own.py"), "--clients", "6", "--json"]
    result = CliRunner().invoke(simulate, arguments)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.output.splitlines()]
    faults = [event for event in events if event.get("kind") == "client_failed"]
    assert "client-5" not in {event["details"]["client"] for event in faults}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "nosuch"], "no built-in task"),
        (["--task", "mnist-writers"], "'mnist-writers'"),
        (["--clients", "5000"], "5000 shares"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_sentence(study_file: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(simulate, [str(study_file), *arguments])
    assert isinstance(result.exception, InvalidInputError)
    assert said in result.exception.message


@pytest.mark.parametrize("command", [simulate, compare])
@pytest.mark.parametrize(
    ("spread", "said"),
    [("5.1", "5.1 is out of range"), ("-1", "from 0 to 5"), ("nan", "no finite number"), ("a", "not a valid float")],
)
def test_a_spread_of_speeds_that_no_federation_has_is_refused(
    study_file: Path, command: click.Command, spread: str, said: str
) -> None:
    result = CliRunner().invoke(command, [str(study_file), "--speed-spread", spread])
    assert result.exit_code == 2
    assert "--speed-spread" in result.output
    assert said in result.output


def test_a_mistake_in_the_study_is_told_with_its_line(study_file: Path) -> None:
    study_file.write_text(kit.STUDY.replace('name = "random"', 'name = "rondom"'))
    result = CliRunner().invoke(simulate, [str(study_file)])
    assert isinstance(result.exception, InvalidInputError)
    assert f"{study_file}:9: tuner.name" in result.exception.message
