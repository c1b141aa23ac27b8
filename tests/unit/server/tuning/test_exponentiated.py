"""FedEx's update against numbers worked out by hand from algorithm 2 of arXiv 2106.04502."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.tuning.exponentiated import ExponentiatedGradient, Schedule

LOG2 = math.log(2)


def test_it_starts_uniform() -> None:
    theta = ExponentiatedGradient(4, "aggressive", 0.0)
    assert theta.theta == pytest.approx([0.25] * 4)
    assert theta.entropy == pytest.approx(math.log(4))


def test_one_aggressive_step() -> None:
    gradient = ExponentiatedGradient(2, "aggressive", 0.0)
    # g = (3/4 · 2 / ½, 1/4 · 1 / ½) = (3, ½); η = sqrt(2 log 2) / 3; θ ∝ exp(-η g).
    gradient.update([0, 1], [2.0, 1.0], [30, 10])
    ratio = math.exp(-math.sqrt(2 * LOG2) / 3 * (3 - 0.5))
    assert gradient.theta == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


def test_the_baseline_is_taken_off_from_the_second_round_on() -> None:
    gradient = ExponentiatedGradient(2, "constant", 0.0)
    gradient.update([0, 1], [1.0, 1.0], [1, 1])  # mean 1, g = (1, 1): nothing moves
    assert gradient.theta == pytest.approx([0.5, 0.5])
    # λ = 1: g = (½ (2 - 1) / ½, ½ (1 - 1) / ½) = (1, 0)
    gradient.update([0, 1], [2.0, 1.0], [1, 1])
    ratio = math.exp(-math.sqrt(2 * LOG2))
    assert gradient.theta == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


@pytest.mark.parametrize(("discount", "baseline"), [(0.0, 4.0), (0.5, (4 + 0.5 * 2 + 0.25 * 1) / 1.75), (1.0, 7 / 3)])
def test_the_baseline_is_the_discounted_mean_of_earlier_rounds(discount: float, baseline: float) -> None:
    gradient = ExponentiatedGradient(2, "constant", discount)
    for mean in (1.0, 2.0, 4.0):
        gradient.update([0, 1], [mean, mean], [1, 1])
    uniform = gradient.theta
    assert uniform == pytest.approx([0.5, 0.5])
    # Client 0 alone: g = ((baseline + 1 - baseline) / ½, 0) = (2, 0), whatever the baseline is.
    gradient.update([0], [baseline + 1], [1])
    ratio = math.exp(-2 * math.sqrt(2 * LOG2))
    assert gradient.theta == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


def test_the_adaptive_step_divides_by_all_gradients_so_far() -> None:
    gradient = ExponentiatedGradient(2, "adaptive", 0.0)
    gradient.update([0, 1], [3.0, 3.0], [1, 1])  # g = (3, 3), max 3
    gradient.update([0, 1], [7.0, 3.0], [1, 1])  # λ = 3: g = (½ · 4 / ½, 0) = (4, 0), max 4; η = sqrt(2 log 2) / 5
    ratio = math.exp(-math.sqrt(2 * LOG2) * 4 / 5)
    assert gradient.theta == pytest.approx([ratio / (1 + ratio), 1 / (1 + ratio)])


def test_a_rare_configuration_weighs_by_its_inverse_probability() -> None:
    gradient = ExponentiatedGradient(2, "constant", 0.0)
    gradient.log_theta = np.log([0.1, 0.9])
    gradient.update([0, 1], [1.0, 1.0], [1, 1])
    # g = (½ / 0.1, ½ / 0.9) = (5, 5/9)
    weights = [0.1 * math.exp(-5 * math.sqrt(2 * LOG2)), 0.9 * math.exp(-5 / 9 * math.sqrt(2 * LOG2))]
    assert gradient.theta == pytest.approx([weight / sum(weights) for weight in weights])


def test_a_round_without_weights_changes_nothing() -> None:
    gradient = ExponentiatedGradient(3, "aggressive", 0.5)
    gradient.update([], [], [])
    gradient.update([1], [2.0], [0])
    assert gradient.theta == pytest.approx([1 / 3] * 3)


def test_one_configuration_stays_alone() -> None:
    gradient = ExponentiatedGradient(1, "aggressive", 0.5)
    gradient.update([0, 0], [2.0, 1.0], [1, 1])
    assert gradient.theta == pytest.approx([1.0])


@given(
    st.integers(2, 30),
    st.sampled_from(["aggressive", "adaptive", "constant"]),
    st.floats(0, 1),
    st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=10), max_size=20),
    st.integers(0, 99),
)
def test_theta_stays_a_distribution(
    size: int, schedule: Schedule, discount: float, rounds: list[list[float]], seed: int
) -> None:
    gradient = ExponentiatedGradient(size, schedule, discount)
    for k, losses in enumerate(rounds):
        drawn = gradient.draw(len(losses), np.random.default_rng([seed, k]))
        gradient.update(drawn, losses, [1] * len(losses))
    assert gradient.theta.sum() == pytest.approx(1.0)
    assert (gradient.theta >= 0).all()


@pytest.mark.parametrize(("schedule", "left"), [("aggressive", 0.2), ("adaptive", 0.7), ("constant", 0.2)])
def test_theta_concentrates_on_the_best_configuration(schedule: Schedule, left: float) -> None:
    gradient = ExponentiatedGradient(9, schedule, 0.5)
    rng = np.random.default_rng(1)
    for _ in range(150):
        drawn = gradient.draw(10, rng)
        gradient.update(drawn, [0.5 + 0.2 * abs(index - 3) + 0.05 * rng.normal() for index in drawn], [1] * 10)
    assert gradient.likeliest == 3
    assert gradient.entropy < left * math.log(9)
