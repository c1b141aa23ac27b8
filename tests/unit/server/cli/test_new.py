"""A study file to begin with."""

import re
from pathlib import Path

import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.standard import STANDARD
from fedstep.common.study_file import parse_study, read_study
from fedstep.common.tasks import load_task
from fedstep.server.cli.new import write_new
from fedstep.server.coordination.checks import check_parts

REMARK = re.compile(r"# (\w+ = )")


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    write_new(path, "mine", "digits")
    return path.read_text()


def test_it_can_be_run_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    write_new(path, "mine", "digits")
    study = read_study(path)
    assert (study.name, study.task, study.tuner.name) == ("mine", "digits", "stepwise")
    check_parts(study, load_task("digits"))
    assert f"fedstep study run {path}" in path.read_text()


def test_what_its_remarks_offer_can_stand_there(text: str) -> None:
    by_trials = text.replace('name = "stepwise"', "")
    offered = REMARK.sub(r"\1", by_trials)
    assert offered.count("\n# ") < by_trials.count("\n# ")
    study = parse_study(offered, "mine.toml")
    assert study.tuner.name == "optuna"
    check_parts(study, load_task("digits"))


def test_every_hyper_parameter_that_it_names_is_one(text: str) -> None:
    (line,) = (line for line in text.splitlines() if line.startswith("# weight_decay,"))
    named = line.removeprefix("# ").partition(" and more")[0].split(", ")
    assert set(named) <= set(STANDARD)


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match="is there already"):
        write_new(path, "mine", "digits")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["a b", 'a"', "", "a\nb"])
def test_a_name_that_no_study_may_have_writes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.toml"
    with pytest.raises(InvalidInputError):
        write_new(path, name, "digits")
    assert not path.exists()
