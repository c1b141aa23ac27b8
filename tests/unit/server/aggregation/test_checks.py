import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.errors import InvalidInputError
from fedstep.server.aggregation.checks import check_update, l2_norm


def test_a_sound_update_passes() -> None:
    check_update(torch.full((10,), 0.1), weights_norm=5.0, max_ratio=100.0)
    check_update(torch.zeros(10), weights_norm=0.0, max_ratio=100.0)
    check_update(torch.empty(0), weights_norm=0.0, max_ratio=100.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1 << 20, (2 << 20) + 4])
def test_one_value_that_is_not_finite_is_found_wherever_it_stands(value: float, place: int) -> None:
    update = torch.full(((2 << 20) + 5,), 0.001)
    update[place] = value
    with pytest.raises(InvalidInputError, match=r"holds 1 non-finite value of 2097157"):
        check_update(update, weights_norm=1e6, max_ratio=100.0)


def test_non_finite_values_are_counted_even_where_their_sum_would_hide_them() -> None:
    update = torch.tensor([math.inf, -math.inf, math.nan, 1.0])
    with pytest.raises(InvalidInputError, match=r"holds 3 non-finite values of 4"):
        check_update(update, weights_norm=1.0, max_ratio=100.0)


def test_an_update_over_the_ratio_is_refused_with_both_norms() -> None:
    check_update(torch.tensor([300.0, 399.9]), weights_norm=5.0, max_ratio=100.0)
    with pytest.raises(InvalidInputError, match=r"norm is 501, more than 100 times the model's 5:"):
        check_update(torch.tensor([300.0, 401.0]), weights_norm=5.0, max_ratio=100.0)


def test_a_huge_finite_update_is_refused_for_its_size_and_not_as_infinite() -> None:
    with pytest.raises(InvalidInputError, match=r"norm is 4\.24e\+38, more than 100 times"):
        check_update(torch.tensor([3e38, -3e38]), weights_norm=1.0, max_ratio=100.0)


def test_a_huge_finite_update_of_a_huge_model_passes() -> None:
    check_update(torch.tensor([1e25, 1e25]), weights_norm=1e24, max_ratio=100.0)
    with pytest.raises(InvalidInputError, match="norm is"):
        check_update(torch.tensor([1e25, 1e25]), weights_norm=1e23, max_ratio=100.0)


def test_a_model_that_starts_at_zero_may_move() -> None:
    check_update(torch.tensor([60.0, 60.0]), weights_norm=0.0, max_ratio=100.0)
    with pytest.raises(InvalidInputError, match=r"100 times the model's 0 \(taken as 1\)"):
        check_update(torch.tensor([80.0, 80.0]), weights_norm=0.0, max_ratio=100.0)


@given(st.lists(st.floats(-(2.0**50), 2.0**50, width=32, allow_subnormal=False), max_size=50))
def test_the_norm_is_that_of_float64(values: list[float]) -> None:
    exact = float(np.linalg.norm(np.array(values, dtype=np.float64)))
    assert l2_norm(torch.tensor(values, dtype=torch.float32)) == pytest.approx(exact, rel=1e-5, abs=1e-18)


def test_the_norm_of_many_elements_is_exact() -> None:
    # A single float32 sum of squares would stop growing at 2²⁴.
    assert l2_norm(torch.ones(30_000_000)) == pytest.approx(math.sqrt(30_000_000), rel=1e-9)
