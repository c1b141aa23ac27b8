"""FedPop's updates: arXiv 2308.08634, algorithm 1 and equations 3 and 4."""

import math

import numpy as np
import pytest

from fedstep.common.space import Space
from fedstep.server.tuning.evolution import (
    EvolutionSettings,
    Genome,
    annealed,
    discounted_mean,
    evolve_clients,
    evolved_copy,
    genome_around,
    pairs,
)

SPACE = Space.model_validate(
    {"lr": {"low": 1e-4, "high": 1.0, "log": True}, "server_lr": {"low": 0.1, "high": 10.0, "log": True}}
)
NEVER = EvolutionSettings(resample=0.0)
ALWAYS = EvolutionSettings(resample=1.0)


def genome(slots: list[float], base: float = 0.5) -> Genome:
    return Genome({"lr": base, "server_lr": 0.5}, [{"lr": lr, "server_lr": 0.5} for lr in slots])


def test_cosine_annealing() -> None:
    assert annealed(0.1, 0.0) == pytest.approx(0.1)
    assert annealed(0.1, 0.5) == pytest.approx(0.05)
    assert annealed(0.1, 0.25) == pytest.approx(0.05 * (1 + math.sqrt(0.5)))
    assert annealed(0.1, 1.0) == pytest.approx(0.0)
    assert annealed(0.1, 1.7) == pytest.approx(0.0)


def test_discounted_mean_weighs_the_last_most() -> None:
    assert discounted_mean([1.0, 2.0, 4.0], 0.5) == pytest.approx((4 + 0.5 * 2 + 0.25 * 1) / 1.75)
    assert discounted_mean([1.0, 3.0], 0.0) == 3.0
    assert discounted_mean([], 0.9) == math.inf


def test_the_bottom_quantile_is_replaced_from_the_top_quantile() -> None:
    scores = [0.5, 0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 1.0]
    for seed in range(20):
        found = pairs(scores, 0.3, np.random.default_rng(seed))
        assert [worse for worse, _ in found] == [4, 2, 9]  # 0.8, 0.9, 1.0
        assert {better for _, better in found} <= {1, 3, 5}  # 0.1, 0.2, 0.3


def test_top_and_bottom_never_overlap() -> None:
    assert pairs([1.0], 0.5, np.random.default_rng(0)) == []
    assert pairs([2.0, 1.0], 0.5, np.random.default_rng(0)) == [(0, 1)]
    assert pairs([2.0, 1.0, 3.0], 0.5, np.random.default_rng(0)) == [(2, 1)]


def test_a_replaced_slot_is_near_the_one_it_copies() -> None:
    evolving = genome([0.45, 0.5, 0.55, 0.58])
    replaced = evolve_clients(SPACE, evolving, [[1.0], [2.0], [3.0], [4.0]], NEVER, 0.5, np.random.default_rng(3))
    assert [worse for worse, _ in replaced] == [2, 3]
    for worse, better in replaced:
        # ε is half as wide in the middle of the run: 0.05.
        assert 0 < abs(evolving.slots[worse]["lr"] - evolving.slots[better]["lr"]) <= 0.05
        assert evolving.slots[worse]["server_lr"] == 0.5
    assert [slot["lr"] for slot in evolving.slots[:2]] == [0.45, 0.5]


def test_slots_stay_in_the_box_of_their_base() -> None:
    for seed in range(30):
        evolving = genome([0.6, 0.6, 0.6, 0.6])
        evolve_clients(SPACE, evolving, [[1.0], [2.0], [3.0], [4.0]], NEVER, 0.0, np.random.default_rng(seed))
        assert all(0.4 <= slot["lr"] <= 0.6 + 1e-12 for slot in evolving.slots)


def test_resampling_draws_around_the_base() -> None:
    for seed in range(30):
        evolving = genome([0.6, 0.6, 0.6, 0.6])
        settings = EvolutionSettings(radius=0.02, resample=1.0)
        evolve_clients(SPACE, evolving, [[1.0], [2.0], [3.0], [4.0]], settings, 0.0, np.random.default_rng(seed))
        assert all(abs(slot["lr"] - 0.5) <= 0.02 for slot in evolving.slots[2:])


def test_a_slot_that_told_nothing_is_left_alone() -> None:
    evolving = genome([0.4, 0.5, 0.6])
    assert evolve_clients(SPACE, evolving, [[1.0], [], [2.0]], NEVER, 0.0, np.random.default_rng(0)) == [(2, 0)]
    assert evolving.slots[1]["lr"] == 0.5


def test_a_copy_is_perturbed_and_has_its_own_slots() -> None:
    for seed in range(30):
        copy = evolved_copy(SPACE, genome([0.9] * 5), NEVER, 0.5, np.random.default_rng(seed))
        assert 0 < abs(copy.base["lr"] - 0.5) <= 0.2  # 2 ε_0
        assert 0 < abs(copy.base["server_lr"] - 0.5) <= 0.05  # ε, annealed
        assert len(copy.slots) == 5
        assert all(abs(slot["lr"] - copy.base["lr"]) <= 0.1 for slot in copy.slots)
        assert all(slot["server_lr"] == copy.base["server_lr"] for slot in copy.slots)


def test_a_resampled_copy_is_anywhere() -> None:
    copies = [evolved_copy(SPACE, genome([0.5]), ALWAYS, 0.0, np.random.default_rng(seed)).base for seed in range(60)]
    for name in ("lr", "server_lr"):
        assert min(base[name] for base in copies) < 0.2
        assert max(base[name] for base in copies) > 0.8


def test_first_slots_lie_around_the_base() -> None:
    made = genome_around(SPACE, {"lr": 0.5, "server_lr": 0.2}, 50, 0.1, np.random.default_rng(0))
    lrs = [slot["lr"] for slot in made.slots]
    assert 0.4 <= min(lrs) < 0.42
    assert 0.58 < max(lrs) <= 0.6
