import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.tuning.halving import Halving, plan_halving


def cost(plan: Halving) -> int:
    """Rounds of all arms, rung by rung."""
    alive, behind, rounds = plan.trials, 0, 0
    for stop in plan.stops:
        rounds += alive * (stop - behind)
        alive, behind = plan.survivors(alive), stop
    return rounds


def test_the_published_schedule_of_cifar() -> None:
    # 89 · 27 + 88 · 9 + 91 · 3 + 532 = 4000: Khodak et al. 2021, 27 arms at rate 3.
    assert plan_halving(27, 3, 4000, 800).stops == (89, 177, 268, 800)


def test_the_published_schedule_of_femnist() -> None:
    assert plan_halving(27, 3, 2000, 200).stops == (50, 100, 150, 200)


@pytest.mark.parametrize(("total", "arms"), [(1, 1), (3, 1), (4, 3), (10, 3), (13, 9), (39, 9), (40, 27)])
def test_a_small_budget_has_fewer_arms(total: int, arms: int) -> None:
    assert plan_halving(27, 3, total, total).trials == arms


@given(st.integers(1, 100), st.integers(2, 5), st.integers(1, 5000), st.integers(1, 5000))
def test_every_rung_has_a_round_and_the_budget_holds(arms: int, rate: int, total: int, longest: int) -> None:
    plan = plan_halving(arms, rate, total, longest)
    assert plan.trials <= arms
    assert list(plan.stops) == sorted(set(plan.stops))
    assert plan.stops[0] >= 1
    assert cost(plan) <= total
