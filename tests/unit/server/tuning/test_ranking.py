import math
from typing import Any, Literal

import pytest

from fedstep.common.space import Space
from fedstep.common.spec import Budget, Objective, StudySpec
from fedstep.server.storage.base import TrialRecord, TrialState
from fedstep.server.tuning.ranking import best_trial

PRUNED, FAILED, RUNNING = TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING


def spec(direction: Literal["minimize", "maximize"] = "minimize") -> StudySpec:
    return StudySpec(
        name="s",
        task="digits",
        space=Space.model_validate({"lr": {"low": 0.1, "high": 1.0}}),
        objective=Objective(metric="loss", direction=direction),
        budget=Budget(trials=8, rounds_per_trial=2, final_rounds=3),
    )


def trial(number: int, *values: float | None, state: TrialState = TrialState.COMPLETED, **details: Any) -> TrialRecord:
    return TrialRecord(number, state, {"lr": 0.1}, values, details=details)


def best(*trials: TrialRecord, direction: Literal["minimize", "maximize"] = "minimize") -> int | None:
    found = best_trial(spec(direction), trials)
    return found.number if found is not None else None


def test_the_best_value_decides_by_the_studys_direction_and_the_earliest_of_equal_ones() -> None:
    trials = trial(0, 0.5), trial(1, 0.7), trial(2, 0.7), trial(3, 0.5)
    assert best(*trials) == 0
    assert best(*trials, direction="maximize") == 1


@pytest.mark.parametrize("state", [PRUNED, FAILED, RUNNING])
def test_a_model_is_as_good_as_it_measures_however_its_trial_ended(state: TrialState) -> None:
    assert best(trial(0, 0.5), trial(1, 0.4, state=state)) == 1


def test_what_the_study_ended_with_is_the_best_whatever_it_measures() -> None:
    assert best(trial(0, 0.1), trial(1, 0.9, delivered=True), trial(2, 0.2)) == 1


def test_final_rounds_do_not_count_and_all_rounds_of_an_arm_do() -> None:
    assert best(trial(0, 0.9, 0.5), trial(1, 0.8, 0.6, 0.1)) == 0
    assert best(trial(0, 0.9, 0.5, rounds=2), trial(1, 0.8, 0.6, 0.1, rounds=3)) == 1


def test_an_arm_that_was_only_measured_has_the_value_it_was_measured_at() -> None:
    assert best(trial(0, 0.5, rounds=1), trial(1, rounds=0, value=0.4, parents=[0])) == 1


def test_a_measurement_of_the_initial_model_is_no_trial_to_end_with() -> None:
    measured = trial(0, rounds=0, value=0.1)
    assert best(measured) is None
    assert best(measured, trial(1, 0.5, rounds=1)) == 1


def test_without_a_finite_value_there_is_no_best() -> None:
    assert best() is None
    assert best(trial(0), trial(1, None), trial(2, 0.1, None), trial(3, math.nan), trial(4, math.inf)) is None
    assert best(trial(0, math.nan), trial(1, 3.0)) == 1
