"""What the commands print of a study of arms, and of one of plain trials."""

import json

import pytest
from unit.server.report.arms import NOW, story, study

from fedstep.server.api import convert
from fedstep.server.cli.progress import Progress
from fedstep.server.cli.show import counts, print_study, print_trials
from fedstep.server.coordination import narrate
from fedstep.server.coordination.studies import StudyView
from fedstep.server.storage.base import Event, NewEvent, RoundRecord, StudyRecord, TrialRecord, TrialState
from fedstep.v1 import study_pb2


def message(record: StudyRecord, trials: list[TrialRecord]) -> study_pb2.Study:
    return convert.study(StudyView(record, trials, trials[-1]), "sqlite:///x.db")


def events(record: StudyRecord, trials: list[TrialRecord]) -> list[NewEvent]:
    """Every arm begins, trains, and ends; the last one is adopted."""
    told = [narrate.study_started(record.spec, 0)]
    for trial in trials:
        told.append(narrate.trial_started(trial))
        for k, value in enumerate(trial.values):
            done = RoundRecord(trial.number, trial.first_round + k, 1, b"", value, {}, 1.0, ("a",), 1, (), 1.0, NOW)
            told.append(narrate.round_committed(record.spec, done))
        told.append(narrate.trial_ended(record.spec, trial))
    return [*told, NewEvent("adoption", "It is adopted [because].", {"arms": [7, 6]})]


def watched(record: StudyRecord, trials: list[TrialRecord], as_json: bool = False) -> None:
    with Progress(message(record, trials), as_json) as progress:
        for number, event in enumerate(events(record, trials), start=1):
            progress.event(convert.event(Event(event.kind, event.text, event.details, number, NOW)))


def test_watching_arms_tells_decisions_and_not_every_round(capsys: pytest.CaptureFixture[str]) -> None:
    watched(study(), story())
    lines = [line[10:] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Study writers: a budget of 60 rounds, tuned by stepwise."
    assert lines[-1] == "It is adopted [because]."
    assert "Fork 7 from 4: lr 0.08." in lines
    assert "Fork 7 is complete at loss 1.1000 after 2 rounds." in lines
    assert not [line for line in lines if " round " in line]
    assert not [line for line in lines if line.startswith(("Measure 5", "Mean 8"))]
    assert not [line for line in lines if line.startswith("Fork 6 from")]  # it goes on as before
    assert "Fork 6 is complete at loss 1.2000 after 2 rounds." in lines


def test_watching_plain_trials_tells_every_round(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [TrialRecord(0, TrialState.COMPLETED, {"lr": 0.1}, (0.5, 0.4))]
    watched(study(tuner="random", trials=1), plain)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert len([line for line in lines if " round " in line]) == 2


def test_for_programs_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    watched(study(), story(), as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["kind"] for event in told] == [event.kind for event in events(study(), story())]


def test_a_study_of_arms_is_measured_in_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    shown = message(study(), story())
    assert counts(shown) == ("13", "19/60")
    print_study(shown)
    out = capsys.readouterr().out
    assert "writers: completed; task digits, tuner stepwise; 19 of 60 rounds, 13 arms" in out
    assert "Its model is made of more arms than one: fedstep study explain writers" in out


def test_a_study_of_trials_is_measured_in_trials(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [TrialRecord(0, TrialState.COMPLETED, {"lr": 0.1}, (0.5, 0.4))]
    shown = message(study(tuner="random", trials=4), plain)
    assert counts(shown) == ("1/4", "2")
    print_study(shown)
    out = capsys.readouterr().out
    assert "1 of 4 trials, 2 rounds" in out
    assert "explain" not in out


def test_arms_are_listed_with_what_they_are_for_and_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    print_trials("writers", [convert.trial(trial) for trial in story()])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["trial", "phase", "from", "state", "rounds", "value", "hyper-parameters"]
    assert rows[8] == ["7", "fork", "4", "completed", "5–6", "1.1000", "lr=0.08"]
    assert rows[9] == ["8", "mean", "6+7", "completed", "at", "6", "1.0000", "lr=0.06"]
    assert rows[2][:4] == ["1", "screen", "–", "completed"]


def test_plain_trials_are_listed_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    trial = TrialRecord(0, TrialState.PRUNED, {"lr": 0.1}, (0.5, None))
    print_trials("s", [convert.trial(trial)])
    heading, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert heading == ["trial", "state", "rounds", "value", "hyper-parameters"]
    assert row == ["0", "pruned", "2", "–", "lr=0.1"]
    print_trials("s", [])
    assert capsys.readouterr().out == "Study s has no trials yet.\n"
