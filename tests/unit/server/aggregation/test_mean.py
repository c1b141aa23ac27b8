import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.aggregator_kit import AggregatorContract
from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.mean import WeightedMean


class TestWeightedMean(AggregatorContract):
    def make(self, elements: int) -> Aggregator:
        return WeightedMean(elements)

    def expected(self, updates: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.average(updates, axis=0, weights=weights))


def test_a_thousand_updates_of_very_different_weights_stay_close_to_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.logspace(0, 9, 1000, dtype=torch.float64)[torch.randperm(1000, generator=generator)].tolist()
    mean, exact = WeightedMean(50), np.zeros(50)
    for weight in weights:
        update = torch.randn(50, generator=generator)
        mean.add(update, weight)
        exact += weight * update.double().numpy()
    exact /= sum(weights)
    error = np.abs(mean.finish().double().numpy() - exact).max()
    assert error < 1e-6 * np.abs(exact).max()


def test_many_heavy_clients_of_large_values_do_not_overflow_float32() -> None:
    mean = WeightedMean(2)
    for _ in range(1000):
        mean.add(torch.tensor([1e33, -1e33]), 1e9)  # the plain sum would be 1e45
    np.testing.assert_allclose(mean.finish().numpy(), [1e33, -1e33], rtol=1e-4)


@pytest.mark.parametrize("weights", [(1.0, 1e9), (1e9, 1.0)])
def test_the_lightest_client_counts_next_to_the_heaviest(weights: tuple[float, float]) -> None:
    mean = WeightedMean(3)
    values = [(1e20, 0.0, 1.0), (0.0, 1e20, 3.0)]
    for value, weight in zip(values, weights, strict=True):
        mean.add(torch.tensor(value), weight)
    exact = np.average(np.array(values), axis=0, weights=weights)
    np.testing.assert_allclose(mean.finish().numpy(), exact, rtol=1e-6)


def test_equal_updates_are_their_own_mean() -> None:
    update = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mean = WeightedMean(1000)
    for samples in (3, 17, 120, 1):
        mean.add(update, samples)
    torch.testing.assert_close(mean.finish(), update, rtol=3e-7, atol=0.0)


def test_a_lone_update_is_returned_bit_for_bit() -> None:
    update = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mean = WeightedMean(1000)
    mean.add(update, 7.0)
    assert torch.equal(mean.finish(), update)
