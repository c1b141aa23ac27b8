"""The folder that an interrupted comparison goes on from."""

import math
from pathlib import Path

import pytest

from fedstep.common.errors import InvalidInputError, StorageError
from fedstep.simulation.outcome import Journal, Key, Leg, Outcome, Point

SETTING: dict[str, object] = {"study": {"name": "small"}, "clients": 10}


def outcome(seed: int, value: float = 0.5) -> Outcome:
    return Outcome(
        key=Key(tuner="random", seed=seed, budget=60, trial_rounds=20),
        value=value,
        metrics={"accuracy": value, "loss": math.inf},
        curve=(Point(rounds=0.0, seconds=0.0, value=0.1), Point(rounds=60.0, seconds=7.5, value=value)),
        schedule=(Leg(hyperparameters={"lr": 0.1, "batch_size": 16, "optimizer": "sgd"}, rounds=20),),
    )


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTING) as journal:
        journal.add(outcome(0))
        journal.add(outcome(1, 0.75))
    with Journal(tmp_path, SETTING) as journal:
        assert journal.outcomes == {outcome(0).key: outcome(0), outcome(1).key: outcome(1, 0.75)}


def test_a_line_that_was_cut_short_is_lost_alone(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTING) as journal:
        journal.add(outcome(0))
        journal.add(outcome(1))
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    with Journal(tmp_path, SETTING) as journal:
        assert list(journal.outcomes) == [outcome(0).key]
        journal.add(outcome(2))
    with Journal(tmp_path, SETTING) as journal:
        assert list(journal.outcomes) == [outcome(0).key, outcome(2).key]


def test_another_setting_is_refused_and_named(tmp_path: Path) -> None:
    Journal(tmp_path, SETTING).__exit__()
    with pytest.raises(InvalidInputError, match=r"differs in clients: give another folder with --out"):
        Journal(tmp_path, {**SETTING, "clients": 11})


def test_two_comparisons_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTING), pytest.raises(StorageError, match="Another comparison"):
        Journal(tmp_path, SETTING)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--out"):
        Journal(tmp_path / "file", SETTING)


def test_a_line_of_another_version_is_told_with_its_place(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTING) as journal:
        journal.add(outcome(0))
    (tmp_path / "results.jsonl").open("a").write('{"other": 1}\n')
    with pytest.raises(StorageError, match="line 2"):
        Journal(tmp_path, SETTING)
