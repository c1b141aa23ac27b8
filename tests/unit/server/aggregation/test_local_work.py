"""Effective local steps against the formulas of Wang et al. 2020, and against steps that are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.aggregation.local_work import MAX_STEPS, effective_steps

steps = st.integers(1, 200)
momenta = st.floats(0.01, 0.99)
pulls = st.floats(1e-4, 0.9)


@given(steps)
def test_plain_sgd_counts_its_steps(count: int) -> None:
    assert effective_steps(count) == count


@given(steps, momenta)
def test_momentum_as_in_the_paper(count: int, momentum: float) -> None:
    """a = [1 − ρ^τ, …, 1 − ρ] / (1 − ρ), and the closed form of its norm."""
    vector = (1 - momentum ** np.arange(count, 0, -1)) / (1 - momentum)
    closed = (count - momentum * (1 - momentum**count) / (1 - momentum)) / (1 - momentum)
    assert effective_steps(count, momentum) == pytest.approx(vector.sum())
    assert effective_steps(count, momentum) == pytest.approx(closed)


@given(steps, pulls)
def test_the_proximal_term_as_in_the_paper(count: int, pull: float) -> None:
    """a = [(1 − α)^(τ−1), …, 1], and the closed form of its norm."""
    vector = (1 - pull) ** np.arange(count - 1, -1, -1)
    assert effective_steps(count, 0.0, pull) == pytest.approx(vector.sum())
    assert effective_steps(count, 0.0, pull) == pytest.approx((1 - (1 - pull) ** count) / pull)


@given(st.integers(1, 40), momenta, pulls)
def test_both_at_once_as_the_steps_themselves_weigh_the_gradients(count: int, momentum: float, pull: float) -> None:
    """What each gradient has come to after the last step of SGD with momentum and a pull back to the start."""
    weights = []
    for bearing in range(count):
        velocity = moved = 0.0
        for step in range(count):
            velocity = momentum * velocity + (step == bearing) - pull * moved
            moved += velocity
        weights.append(abs(moved))
    assert effective_steps(count, momentum, pull) == pytest.approx(sum(weights))


@given(steps, st.floats(0, 0.99), st.floats(0, 0.9))
def test_more_steps_are_more_work(count: int, momentum: float, pull: float) -> None:
    assert effective_steps(count + 1, momentum, pull) >= effective_steps(count, momentum, pull)


def test_an_absurd_number_of_steps_costs_no_more_than_a_great_one() -> None:
    assert effective_steps(2**32, 0.9) == effective_steps(MAX_STEPS, 0.9)
