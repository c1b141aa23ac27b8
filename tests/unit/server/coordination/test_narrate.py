import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.server.report.arms import NOW, arm, study

from fedstep.common.spec import GuardPolicy
from fedstep.common.version import VERSION
from fedstep.server.coordination import narrate
from fedstep.server.coordination.fleet import Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.ledger import OpenAssignment, Owner
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.storage.base import RoundRecord, TrialRecord, TrialState
from fedstep.v1 import fleet_pb2 as pb

SPEC = study().spec


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (TrialRecord(4, TrialState.RUNNING, {"lr": 0.05, "flip": True}), "Trial 4: lr 0.05, flip True."),
        (TrialRecord(4, TrialState.RUNNING, {}), "Trial 4: the defaults."),
        (arm(1, 0.1, phase="screen", rounds=5), "Screen 1: lr 0.1."),
        (arm(12, 0.05, parents=(10,), phase="fork", rounds=8), "Fork 12 from 10: lr 0.05."),
        (arm(57, 0.05, parents=(30,), phase="arm 3", rounds=1), "Trial 57 (arm 3) from 30: lr 0.05."),
        (arm(5, 0.05, parents=(4,), rounds=3), "Trial 5 from 4: lr 0.05."),
        (arm(15, 0.05, 1.0, parents=(12, 13), phase="mean", rounds=0), "Mean 15 of 12 and 13: only measured."),
        (
            arm(0, 0.05, phase="probe", points=[{"lr": 0.1}] * 30, rounds=1),
            "Probe 0: 30 configurations, dealt to its clients.",
        ),
    ],
)
def test_an_arm_begins_in_one_sentence(trial: TrialRecord, text: str) -> None:
    event = narrate.trial_started(trial)
    assert (event.kind, event.text) == ("trial_started", text)
    assert event.details["trial"] == trial.number
    assert event.details["hyperparameters"] == dict(trial.hyperparameters)
    assert event.details.keys() <= {"trial", "hyperparameters", "parents", "phase", "rounds"}


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        (TrialRecord(3, TrialState.COMPLETED, {}, (0.5, 0.25)), "Trial 3 is complete at loss 0.2500 after 2 rounds."),
        (TrialRecord(3, TrialState.PRUNED, {}, (0.5,)), "Trial 3 is pruned at loss 0.5000 after 1 round."),
        (
            TrialRecord(3, TrialState.FAILED, {}, (0.5,), message="it diverged."),
            "Trial 3 failed after 1 round: it diverged.",
        ),
        (arm(12, 0.1, None, 0.4, parents=(10,), phase="fork"), "Fork 12 is complete at loss 0.4000 after 2 rounds."),
        (arm(12, 0.1, None, parents=(10,), phase="arm 3"), "Trial 12 (arm 3) is complete after 1 round."),
        (arm(15, 0.1, 0.4, parents=(12, 13), phase="mean", rounds=0), "Mean 15 is measured at loss 0.4000."),
    ],
)
def test_an_arm_ends_in_one_sentence(trial: TrialRecord, text: str) -> None:
    event = narrate.trial_ended(SPEC, trial)
    assert (event.kind, event.text) == (f"trial_{trial.state.value}", text)


@pytest.mark.parametrize(
    ("budget", "tuner", "text"),
    [
        ({"trials": 8, "rounds_per_trial": 5}, "random", "Study writers: 8 trials of 5 rounds, tuned by random."),
        ({"rounds": 600}, "stepwise", "Study writers: a budget of 600 rounds, tuned by stepwise."),
    ],
)
def test_a_study_begins_with_what_it_is_going_to_spend(budget: dict[str, Any], tuner: str, text: str) -> None:
    assert narrate.study_started(study(tuner=tuner, **budget).spec, 0).text == text


def test_a_round_that_nobody_measured_says_so() -> None:
    record = RoundRecord(1, 4, 1, b"", None, {}, 0.5, ("a",), 3, (), 1.5, NOW)
    assert narrate.round_committed(SPEC, record).text == "Trial 1 round 4: no loss measured, 3 updates, 1.50 s."


def test_a_round_says_what_was_partial_and_what_was_late() -> None:
    counts = {"loss": 0.5, "partial_updates": 2.0, "late_updates": 1.0}
    record = RoundRecord(1, 4, 1, b"", 0.5, counts, 0.5, ("a",), 9, ("b",), 1.5, NOW)
    text = "Trial 1 round 4: loss 0.5000, 9 updates (2 partial) and 1 late, 1.50 s."
    assert narrate.round_committed(SPEC, record).text == text


def test_a_buffered_round_says_how_old_its_updates_are() -> None:
    record = RoundRecord(1, 4, 1, b"", 0.5, {"loss": 0.5, "staleness": 1.25}, 0.5, ("a",), 9, ("b",), 1.5, NOW)
    text = "Trial 1 round 4: loss 0.5000, 9 updates 1.2 rounds old on average, 1.50 s."
    assert narrate.round_committed(SPEC, record).text == text


def test_what_a_client_is_told_is_one_sentence_with_the_facts() -> None:
    work = OpenAssignment(
        pb.Assignment(trial=1, round=3),
        cast("Member", SimpleNamespace(name="b")),
        owner=cast("Owner", None),
        update_bytes=8,
        sent_at=0.0,
        deadline_s=10.0,
        guard=LossGuard(GuardPolicy()),
        plan=LocalPlan(40, 40),
    )
    told = narrate.told_to_send(work, 12.34, 9.5, 10.0)
    ending = "the round ends after 10 s, so it is told to send what it has."
    assert told.text == f"b in round 3 of trial 1 would be done after 12.3 s, and should be after 9.5 s: {ending}"
    assert told.details == {
        "client": "b",
        "trial": 1,
        "round": 3,
        "steps": 0,
        "steps_due": 40,
        "projected_finish_s": 12.34,
        "due_s": 9.5,
        "deadline_s": 10.0,
    }
    silent = narrate.told_to_send(work, math.inf, 9.5, 10.0)
    assert silent.text == f"b in round 3 of trial 1 has told of no step yet: {ending}"
    assert silent.details["projected_finish_s"] is None
    more = narrate.put_off([work], 10.0, 12.53716)
    assert more.text == "Round 3 of trial 1 is put off from 10 s to 12.5 s, when b will be done."
    told = {"trial": 1, "round": 3, "clients": ["b"], "before_s": 10.0, "deadline_s": 12.53716}
    assert (more.kind, more.details) == ("round_put_off", told)
    (going_on,) = narrate.going_on([work], "enough clients have answered")
    text = "enough clients have answered; b goes on, and its update is still taken, at a discount."
    assert going_on.text == f"Round 3 of trial 1: {text}"
    (dismissed,) = narrate.dismissed([work], "enough clients have answered", 3)
    assert dismissed.text == "Round 3 of trial 1: enough clients have answered; told to stop: b."
    late = narrate.late_update(TakenLate("b", 1, 3, 5))
    assert late.text == "b's update of round 3 of trial 1 came late: it counts in round 5, at 0.58 of its weight."
    assert (late.details["staleness"], late.details["discount"]) == (2, pytest.approx(3**-0.5))
    part = narrate.late_update(TakenLate("b", 1, 3, 5, 0.25))
    assert "came late, with 25% of its steps: it counts" in part.text
    assert narrate.taken_late([late, part]) == [TakenLate("b", 1, 3, 5), TakenLate("b", 1, 3, 5, 0.25)]
    turns = narrate.waits_for_turns(1, 3, ["c", "b"])
    assert turns.text == "Round 3 of trial 1 waits for b, c: it is their turn, however slow."
    assert (turns.kind, turns.details["clients"]) == ("round_waits_for_turns", ["b", "c"])


def test_every_life_of_a_study_tells_its_versions() -> None:
    for event in (narrate.study_started(study().spec, 0), narrate.study_started(study().spec, 5)):
        assert event.details["versions"]["fedstep"] == VERSION
        assert {"python", "torch", "optuna", "numpy", "grpcio"} <= event.details["versions"].keys()
