from datetime import UTC, datetime

from unit.server.report.arms import story

from fedstep.server.api import convert
from fedstep.server.cli.records import event_record, trial_records
from fedstep.server.report.lineage import Tree
from fedstep.server.storage.base import Event, TrialRecord, TrialState


def test_arms_come_back_as_the_tree_they_were() -> None:
    trials = story()
    back = trial_records(reversed([convert.trial(trial) for trial in trials]))
    for trial in trials:
        assert back[trial.number].first_round == trial.first_round
        assert back[trial.number].values == trial.values
        assert back[trial.number].value == trial.value
        assert back[trial.number].hyperparameters == trial.hyperparameters
    there, here = Tree(trials, 12), Tree(back.values(), 12)
    assert here.schedule() == there.schedule()
    assert here.adoptions() == there.adoptions()
    assert [branch.role for branch in here.branches] == [branch.role for branch in there.branches]


def test_a_plain_trial_stays_plain() -> None:
    trial = TrialRecord(3, TrialState.PRUNED, {"lr": 0.1, "flip": True}, (None, 0.5), {"loss": 0.5}, message="m")
    assert trial_records([convert.trial(trial)]) == {3: trial}


def test_whole_numbers_of_an_event_are_whole_again() -> None:
    details = {"arms": [7, 6], "z": -1.5, "n": 20, "inner": {"x": [1.0, 0.5]}, "text": "t", "no": None, "on": True}
    event = Event("adoption", "It is adopted.", details, 5, datetime(2026, 1, 1, tzinfo=UTC))
    back = event_record(convert.event(event))
    assert back == event
    assert isinstance(back.details["arms"][0], int)
