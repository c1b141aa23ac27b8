"""What a study has cost: purposes add up, whatever was recorded of it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contract.store_kit import assignment, spec, trial
from fedstep.server.report.cost import CostTally, Purpose, Spending, StudyCost, cost_of_study
from fedstep.server.storage.base import (
    Spent,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialState,
)
from fedstep.server.storage.costs import ArmCost, Overhead

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def arm(
    number: int, parents: tuple[int, ...] = (), state: TrialState = TrialState.COMPLETED, **details: Any
) -> TrialRecord:
    told = {"phase": "fork", **({"parents": list(parents)} if parents else {}), **details}
    return replace(trial(number), state=state, details=told, values=(1.0,))


def cost(trials: list[TrialRecord], delivered: int | None, costs: list[ArmCost], **changes: Any) -> StudyCost:
    tuner = changes.pop("tuner", "stepwise")
    tally = CostTally()
    tally.add(changes.pop("assignments", ()))
    spent = changes.pop("spent", Spent(sum(c.rounds for c in costs), 0, sum(c.payload_bytes for c in costs)))
    study = StudyRecord(
        spec().model_copy(update={"tuner": spec().tuner.model_copy(update={"name": tuner})}),
        StudyState.RUNNING,
        NOW,
        NOW,
        spent=spent,
    )
    return cost_of_study(study, trials, delivered, costs, tally, changes.pop("overhead", Overhead()), 0)


def plain(number: int, state: TrialState = TrialState.COMPLETED) -> TrialRecord:
    return replace(trial(number), state=state, details={}, values=(1.0,))


def rounds(found: StudyCost) -> dict[str, int]:
    return {one.purpose.value: one.spent.rounds for one in found.purposes}


def test_each_arm_has_one_purpose_by_its_place_in_the_tree() -> None:
    trials = [
        arm(0, phase="probe", discard=True),
        arm(1, phase="screen"),
        arm(2, phase="screen"),
        arm(3, (2,)),
        arm(4, (2,)),
        arm(5, (3,), rounds=0, phase="average"),
        arm(6, (3,), state=TrialState.FAILED),
        arm(7, (3,), state=TrialState.RUNNING),
    ]
    found = cost(trials, 3, [ArmCost(number, 2**number) for number in range(8)])
    assert rounds(found) == {
        "delivered": 4 + 8,
        "measuring": 0,
        "probe": 1,
        "screen": 2,
        "forks": 16,
        "averages": 32,
        "failed": 64,
        "running": 128,
    }
    assert (found.total.rounds, found.tuning.rounds) == (255, 255 - 12)
    assert not any(one.tuning for one in found.purposes if one.purpose is Purpose.DELIVERED)


def test_trials_that_are_not_the_best_are_tuning_and_fixed_tunes_nothing() -> None:
    trials = [
        plain(0, TrialState.PRUNED),
        plain(1),
        plain(2),
    ]
    costs = [ArmCost(number, 1, 1, 100, 40, 1.0) for number in range(3)]
    found = cost(trials, 2, costs, tuner="optuna")
    assert rounds(found) == {"delivered": 1, "measuring": 0, "pruned": 1, "trials": 1}
    assert found.byte_share == pytest.approx(2 / 3)
    assert cost(trials[2:], 2, costs[2:], tuner="fixed").tuning == Spending()


def test_measurements_are_told_apart_and_their_slowest_client_is_what_was_waited_for() -> None:
    given = [
        assignment("t1", payload_bytes=40, model_bytes=30, elapsed_s=2.0),
        assignment("e1", client="a", work="evaluate", payload_bytes=0, model_bytes=30, elapsed_s=0.5),
        assignment("e2", client="b", work="evaluate", payload_bytes=0, model_bytes=30, elapsed_s=0.75),
        assignment("e3", client="b", round=1, work="evaluate", payload_bytes=0, model_bytes=30, elapsed_s=0.25),
    ]
    done = [plain(0)]
    found = cost(done, 0, [ArmCost(0, 2, 1, 160, 40, 5.0)], assignments=given)
    training, measuring = found.purposes
    assert training.spent == Spending(2, 1, 30, 0, 40, 4.0, 2.0)
    assert measuring.spent == Spending(0, 0, 90, 90, 0, 1.0, 0.0, 1.5)
    assert [(one.client, one.trainings, one.measurements) for one in found.clients] == [
        ("a", 0, 1),
        ("b", 0, 2),
        ("c", 1, 0),
    ]
    shared = cost(done, 0, [ArmCost(0, 2, 1, 160, 40, 5.0)], assignments=given, overhead=Overhead(2.0, 1.0, 0.5, 9.0))
    assert shared.added_cpu_seconds == 1.0 + 8.0 * 3 / 4
    assert shared.added_seconds == 1.0 + 2.0
    assert " and 3.0 s. Of these the tuner itself took 2.00 s, 1.00 s on the CPU." in shared.text


def test_what_nothing_is_known_of_was_spent_earlier() -> None:
    found = cost([plain(0)], 0, [ArmCost(0, 1, 1, 10)], spent=Spent(3, 5, 110))
    earlier = found.purposes[-1]
    assert (earlier.purpose, earlier.tuning) == (Purpose.EARLIER, False)
    assert (earlier.spent.rounds, earlier.spent.client_rounds, earlier.spent.model_bytes) == (2, 4, 100)
    assert (found.total.rounds, found.total.payload_bytes) == (3, 110)


def test_a_study_that_has_not_begun_has_cost_nothing() -> None:
    found = cost([], None, [])
    assert (found.total, found.purposes, found.byte_share) == (Spending(), [], 0)
