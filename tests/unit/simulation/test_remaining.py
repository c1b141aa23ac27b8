"""How long the rest of a comparison will take."""

import pytest

from fedstep.simulation.outcome import Key, Outcome
from fedstep.simulation.remaining import remaining_s


def key(tuner: str, seed: int = 0, budget: int = 10) -> Key:
    return Key(tuner=tuner, seed=seed, budget=budget, trial_rounds=5)


def took(tuner: str, wall_s: float, budget: int = 10) -> Outcome:
    return Outcome(key=key(tuner, budget=budget), value=0.5, metrics={}, curve=(), schedule=(), wall_s=wall_s)


def test_nothing_is_known_before_a_study_has_ended() -> None:
    assert remaining_s([key("random")], [], 2) is None
    assert remaining_s([key("random")], [took("random", 0.0)], 2) is None  # of a folder that says no times


def test_studies_take_what_those_of_their_tuner_took_a_round() -> None:
    done = [took("random", 20.0), took("random", 40.0), took("stepwise", 100.0)]
    missing = [key("random", seed) for seed in range(1, 5)]
    assert remaining_s(missing, done, 2) == pytest.approx(2 * 30.0)
    assert remaining_s([key("stepwise", 1, budget=30)], done, 1) == pytest.approx(300.0)


def test_of_a_tuner_that_is_not_known_all_are_asked() -> None:
    assert remaining_s([key("fixed", 1)], [took("random", 20.0), took("stepwise", 40.0)], 1) == pytest.approx(30.0)


def test_the_last_study_is_not_divided_among_processes() -> None:
    assert remaining_s([key("random", 1)], [took("random", 20.0)], 8) == pytest.approx(20.0)
    assert remaining_s([], [took("random", 20.0)], 8) == 0.0
