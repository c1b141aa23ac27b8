import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.spec import GuardPolicy
from fedstep.server.coordination.guard import LossGuard

POLICY = GuardPolicy(window=3, factor=3.0, margin=1.0)


def fed(*losses: float, policy: GuardPolicy = POLICY) -> str:
    return LossGuard(policy).feed(losses)


def test_a_training_that_learns_is_left_alone() -> None:
    assert fed(*(2.3 * 0.99**step for step in range(1000))) == ""
    assert fed() == ""


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_not_finite_trips_at_once_and_is_named(loss: float, word: str) -> None:
    guard = LossGuard(POLICY)
    assert guard.feed([2.0, 1.0]) == ""
    assert guard.feed([1.0, loss, 1.0]) == f"loss is {word} at step 3"


def test_a_first_loss_that_is_not_finite_trips_too() -> None:
    assert fed(math.nan) == "loss is nan at step 0"


def test_a_lasting_rise_trips_with_both_means_and_the_step() -> None:
    assert fed(2.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0) == "loss rose from 2.00 to 6.67 within 6 steps"


def test_one_bad_step_is_forgiven() -> None:
    assert fed(2.0, 2.0, 2.0, 10.0, 2.0, 2.0, 2.0) == ""


def test_exactly_the_factor_is_not_over_it() -> None:
    assert fed(1.0, 1.0, 1.0, 3.0, 3.0, 3.0) == ""
    assert fed(1.0, 1.0, 1.0, 3.0, 3.0, 3.1) != ""


def test_a_small_loss_may_grow_many_times_within_the_margin() -> None:
    assert fed(0.01, 0.01, 0.01, 0.9, 0.9, 0.9) == ""
    assert fed(0.01, 0.01, 0.01, 1.1, 1.1, 1.1) != ""


def test_a_large_loss_may_grow_by_the_margin_within_the_factor() -> None:
    assert fed(10.0, 10.0, 10.0, 29.0, 29.0, 29.0) == ""
    assert fed(10.0, 10.0, 10.0, 31.0, 31.0, 31.0) != ""


def test_a_negative_loss_that_falls_further_is_left_alone() -> None:
    assert fed(-2.0, -2.0, -2.0, -3.0, -4.0, -5.0) == ""
    assert fed(-2.0, -2.0, -2.0, 0.0, 0.0, 0.0) != ""


def test_nothing_is_compared_before_the_first_window_is_full() -> None:
    assert fed(1.0, 500.0) == ""
    assert fed(1.0, 500.0, 1.0, 1.0, 1.0, 1.0) == ""


def test_once_tripped_it_stays_so() -> None:
    guard = LossGuard(POLICY)
    reason = guard.feed([math.nan])
    assert guard.feed([1.0, 1.0, 1.0]) == reason


def test_a_window_of_one_compares_every_step_with_the_first() -> None:
    policy = GuardPolicy(window=1, factor=2.0, margin=0.0)
    assert fed(1.0, 2.0, 1.5, policy=policy) == ""
    assert fed(1.0, 2.1, policy=policy) == "loss rose from 1.00 to 2.10 within 2 steps"


losses = st.lists(st.floats(-100, 100, width=32) | st.sampled_from([math.nan, math.inf]), max_size=60)
policies = st.builds(GuardPolicy, window=st.integers(1, 8), factor=st.floats(1.01, 10.0), margin=st.floats(0.0, 10.0))


@given(losses, policies, st.lists(st.integers(0, 60), max_size=8))
def test_how_steps_are_batched_changes_nothing(values: list[float], policy: GuardPolicy, cuts: list[int]) -> None:
    guard, edges = LossGuard(policy), [0, *sorted(cuts), len(values)]
    reasons = [guard.feed(values[start:end]) for start, end in itertools.pairwise(edges)]
    assert reasons[-1] == LossGuard(policy).feed(values)


@given(losses, policies)
def test_it_trips_exactly_when_the_rule_says(values: list[float], policy: GuardPolicy) -> None:
    def rule(seen: list[float]) -> float:
        """How far over the limit the last window is; nan for a loss that is not finite."""
        if not math.isfinite(seen[-1]):
            return math.nan
        if len(seen) < policy.window:
            return -math.inf
        first, last = (math.fsum(part) / policy.window for part in (seen[: policy.window], seen[-policy.window :]))
        return min(last - policy.factor * first, last - first - policy.margin)

    guard = LossGuard(policy)
    for end in range(1, len(values) + 1):
        over = rule(values[:end])
        tripped = guard.feed(values[end - 1 : end])
        if abs(over) < 1e-9:
            return  # too close to call in floating point
        assert bool(tripped) == (math.isnan(over) or over > 0)
        if tripped:
            return
