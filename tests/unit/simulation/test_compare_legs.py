"""Schedules that were found: read off a study's trials, and stretched."""

from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.storage.base import TrialRecord, TrialState
from fedstep.simulation.legs import average_of, schedule_of, stretched
from fedstep.simulation.outcome import Leg


def trial(number: int, lr: float, rounds: int, **details: object) -> TrialRecord:
    return TrialRecord(number, TrialState.COMPLETED, {"lr": lr}, values=(0.5,) * rounds, details=details)


def leg(lr: float, rounds: int) -> Leg:
    return Leg(hyperparameters={"lr": lr}, rounds=rounds)


def schedule(*trials: TrialRecord, of: int) -> tuple[Leg, ...]:
    return schedule_of({trial.number: trial for trial in trials}, of)


def test_a_trial_of_its_own_is_one_leg() -> None:
    assert schedule(trial(0, 0.1, 60), trial(1, 0.2, 60), of=1) == (leg(0.2, 60),)


def test_the_way_to_a_model_leads_over_its_parents() -> None:
    trials = (trial(0, 0.1, 5), trial(1, 0.9, 5), trial(2, 0.2, 8, parents=[0]), trial(3, 0.4, 8, parents=[0]))
    assert schedule(*trials, of=3) == (leg(0.1, 5), leg(0.4, 8))


def test_legs_alike_are_one() -> None:
    assert schedule(trial(0, 0.1, 5), trial(1, 0.1, 4, parents=[0]), of=1) == (leg(0.1, 9),)


def test_what_was_only_measured_or_thrown_away_trained_nothing() -> None:
    probe, start = trial(0, 0.5, 1, discard=True), trial(1, 0.1, 5)
    mean = trial(2, 0.3, 0, parents=[1, 0])
    assert schedule(probe, start, mean, of=2) == (leg(0.1, 5),)


def test_the_average_is_that_kept_anywhere_on_the_way() -> None:
    trials = {0: trial(0, 0.1, 5), 1: trial(1, 0.1, 5, parents=[0], average=0.8), 2: trial(2, 0.1, 0, parents=[1])}
    assert average_of(trials, 2) == 0.8
    assert average_of(trials, 0) == 0.0


def test_a_schedule_is_stretched_leg_by_leg() -> None:
    assert stretched([leg(0.1, 10), leg(0.2, 20)], 60) == [leg(0.1, 20), leg(0.2, 40)]
    assert stretched([leg(0.1, 1), leg(0.2, 99)], 10) == [leg(0.2, 10)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 200))
def test_a_stretched_schedule_has_exactly_the_rounds_asked_for(lengths: list[int], rounds: int) -> None:
    legs = stretched([leg(0.1 + number, length) for number, length in enumerate(lengths)], rounds)
    assert sum(leg.rounds for leg in legs) == rounds
    assert all(leg.rounds >= 1 for leg in legs)
