"""What `oort` and `power_of_choice` do beside what every selector promises."""

from typing import Any

import numpy as np
import pytest

from contract.selector_kit import context
from fedstep.server.selection.base import Candidates, Part, RoundSeen
from fedstep.server.selection.oort import OortOptions, OortSelector
from fedstep.server.selection.power_of_choice import PowerOfChoice, PowerOfChoiceOptions
from fedstep.server.selection.utility import statistical_utility

FLEET = [f"c{number:03}" for number in range(100)]
FIRST_HALF = np.arange(100) < 50


def fleet(**columns: Any) -> Candidates:
    """A hundred clients who have trained."""
    known = {"log_time": np.log(10.0), "log_time_sd": 0.1, "loss": 1.0, "train_samples": 100, "trained": 3}
    return Candidates.of(FLEET, **(known | columns))


def cohorts(there: Candidates, options: OortOptions | None = None, **changes: Any) -> list[tuple[str, ...]]:
    selector = OortSelector(options or OortOptions())
    return [selector.select(there, 10, context(seed, **changes)).cohort for seed in range(100)]


def share(drawn: list[tuple[str, ...]], chosen: np.ndarray) -> float:
    """Of all places, how many went to these."""
    names = {name for name, of_these in zip(FLEET, chosen, strict=True) if of_these}
    return sum(name in names for cohort in drawn for name in cohort) / sum(map(len, drawn))


def test_utility_is_samples_times_loss_clipped_and_more_with_time() -> None:
    there = Candidates.of(
        ["a", "b", "c", "d"], train_samples=[10, 20, 10, 10], loss=[1.0, 1.0, 4.0, np.nan], waited=[0, 0, 0, 0]
    )
    worth = statistical_utility(there, 1.0, 1)
    assert worth[:3] == pytest.approx([0.25, 0.5, 1.0])
    assert np.isnan(worth[3])
    clipped = statistical_utility(there, 0.5, 1)
    assert clipped[1] == clipped[2]
    waited = statistical_utility(Candidates.of(["a", "b"], loss=1.0, waited=[90, 0]), 1.0, 100)
    assert waited == pytest.approx([1 + np.sqrt(0.1 * np.log(100) / 10), 1 + np.sqrt(0.1 * np.log(100) / 100)])


def test_the_lossy_are_drawn_and_nobody_below_the_cut_off() -> None:
    drawn = cohorts(fleet(loss=np.where(FIRST_HALF, 1.0, 3.0)))
    assert share(drawn, ~FIRST_HALF) == 1.0


def test_the_slow_are_worth_less() -> None:
    there = fleet(log_time=np.where(FIRST_HALF, np.log(40.0), np.log(10.0)), loss=np.where(FIRST_HALF, 2.0, 1.0))
    assert share(cohorts(there), FIRST_HALF) < 0.05
    assert share(cohorts(there, OortOptions(penalty=0.0)), FIRST_HALF) == 1.0


def test_exploration_falls_with_the_rounds_to_its_least() -> None:
    there = fleet(loss=np.where(FIRST_HALF, np.nan, 1.0))
    assert share(cohorts(there, draws=0), FIRST_HALF) == pytest.approx(0.9)
    assert share(cohorts(there, draws=30), FIRST_HALF) == pytest.approx(0.5)
    assert share(cohorts(there, draws=500), FIRST_HALF) == pytest.approx(0.2)


def test_the_fast_are_explored_first() -> None:
    there = fleet(loss=np.nan, log_time=np.where(FIRST_HALF, np.log(40.0), np.log(10.0)))
    assert share(cohorts(there), FIRST_HALF) < 0.3


def test_who_was_drawn_too_often_is_left_out() -> None:
    often = np.arange(100) < 20
    there = fleet(trained=np.where(often, 11, 3), loss=np.where(often, 9.0, 1.0))
    assert share(cohorts(there), often) == 1.0
    assert share(cohorts(there, OortOptions(most_rounds=10)), often) == 0.0


def test_the_pacer_prefers_longer_rounds_when_they_get_to_be_worth_less() -> None:
    there = fleet(log_time=np.where(FIRST_HALF, np.log(15.0), np.log(10.0)), loss=np.where(FIRST_HALF, 2.0, 1.0))

    def after(losses: list[float]) -> float:
        selector = OortSelector(OortOptions(pacer_rounds=2, pacer_step=0.3, cut_off=1.0))
        for number, loss in enumerate(losses):
            selector.observe(RoundSeen(0, number, [Part("c001", True, samples=10, loss=loss)]))
        return share([selector.select(there, 10, context(seed)).cohort for seed in range(50)], FIRST_HALF)

    assert after([1.0, 1.0, 2.0, 2.0]) == 0.0
    assert after([2.0, 2.0, 1.0, 1.0]) == 1.0


def test_power_of_choice_takes_the_lossy_of_those_drawn_by_their_data() -> None:
    losses = np.arange(100) / 100
    there = fleet(loss=losses, train_samples=np.where(FIRST_HALF, 100, 1))
    selector = PowerOfChoice(PowerOfChoiceOptions(choice=3.0))
    drawn = [selector.select(there, 5, context(seed)).cohort for seed in range(100)]
    assert share(drawn, FIRST_HALF) > 0.7  # fifteen of a hundred times as much data
    mean = np.mean([losses[there.find(cohort)].mean() for cohort in drawn])
    assert mean > 0.35  # of the first half's 0.25
    unknown = fleet(loss=np.where(FIRST_HALF, np.nan, 1.0))
    everyone = PowerOfChoice(PowerOfChoiceOptions(choice=100.0))
    assert share([everyone.select(unknown, 5, context(0)).cohort], FIRST_HALF) == 1.0
