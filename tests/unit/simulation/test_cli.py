import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedstep.common.errors import InvalidInputError
from fedstep.simulation.cli import simulate

STUDY = """\
name = "s"
task = "digits"
[space]
lr = { low = 1e-2, high = 1.0, log = true }
[objective]
metric = "accuracy"
direction = "maximize"
[tuner]
name = "random"
[round]
cohort_size = 2
[budget]
trials = 2
rounds_per_trial = 1
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_it_shows_every_round_and_the_result(study: Path) -> None:
    result = CliRunner().invoke(simulate, [str(study), "--clients", "6"])
    assert result.exit_code == 0
    for said in ("Trial 1 round 0: accuracy", "s: completed", "Final model on held-out data", "2 rounds,"):
        assert said in result.output


def test_as_json_every_line_is_an_object_and_the_seed_decides(study: Path) -> None:
    arguments = [str(study), "--clients", "6", "--json", "--seed"]
    first, again, other = (
        [json.loads(line) for line in CliRunner().invoke(simulate, [*arguments, seed]).output.splitlines()]
        for seed in ("1", "1", "2")
    )
    assert first[-1]["rounds"] == 2
    assert first[-1]["virtual_seconds"] > 0
    assert first[-2]["result"]["metrics"] == again[-2]["result"]["metrics"]
    assert first[-2]["best_trial"]["hyperparameters"] != other[-2]["best_trial"]["hyperparameters"]
    assert {line["kind"] for line in first[:-2]} >= {"round_committed", "study_completed"}


def test_the_model_and_the_picture_are_written_where_asked(study: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(simulate, [str(study), "--clients", "6", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out" / "s").iterdir()) == ["model.safetensors", "study.png"]


def test_a_study_that_does_not_complete_exits_with_one(study: Path) -> None:
    study.write_text(STUDY.replace("cohort_size = 2", 'deadline = "1ms"'))
    result = CliRunner().invoke(simulate, [str(study), "--clients", "6"])
    assert result.exit_code == 1
    assert "missed its quorum" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "nosuch"], "no built-in task"),
        (["--task", "mnist-writers"], "'mnist-writers'"),
        (["--clients", "5000"], "5000 shares"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_sentence(study: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(simulate, [str(study), *arguments])
    assert isinstance(result.exception, InvalidInputError)
    assert said in result.exception.message


def test_a_mistake_in_the_study_is_told_with_its_line(study: Path) -> None:
    study.write_text(STUDY.replace('name = "random"', 'name = "rondom"'))
    result = CliRunner().invoke(simulate, [str(study)])
    assert isinstance(result.exception, InvalidInputError)
    assert f"{study}:9: tuner.name" in result.exception.message
