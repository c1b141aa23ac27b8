import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.aggregator_kit import AggregatorContract
from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.local_work import LocalWork
from fedstep.server.aggregation.mean import FedNova, WeightedMean


def normalised(
    updates: NDArray[np.float64], weights: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The rule of Wang et al. 2020, with tau_eff the mean of the lengths."""
    shares = weights / weights.sum()
    return np.asarray((shares @ lengths) * (shares @ (updates / lengths[:, None])))


class TestWeightedMean(AggregatorContract):
    def make(self, elements: int) -> Aggregator:
        return WeightedMean(elements)

    def expected(
        self,
        updates: NDArray[np.float64],
        weights: NDArray[np.float64],
        done: NDArray[np.float64],
        due: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        return normalised(updates, weights * done / due, done / due)


class TestFedNova(AggregatorContract):
    def make(self, elements: int) -> Aggregator:
        return FedNova(elements)

    def expected(
        self,
        updates: NDArray[np.float64],
        weights: NDArray[np.float64],
        done: NDArray[np.float64],
        due: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        return normalised(updates, weights * done / due, done)


def test_whole_updates_of_any_length_are_averaged_bit_for_bit_as_they_were() -> None:
    """The mean as it was before it knew of partial work."""
    generator = torch.Generator().manual_seed(3)
    updates = [torch.randn(500, generator=generator) for _ in range(7)]
    weights = [3.0, 170.0, 12.0, 1e6, 41.0, 7.0, 99.0]
    mean, total = WeightedMean(500), updates[0].clone()
    for steps, update, weight in zip(range(1, 8), updates, weights, strict=True):
        mean.add(update, weight, LocalWork(steps, steps))
    for update, weight in zip(updates[1:], weights[1:], strict=True):
        total.add_(update, alpha=weight / weights[0])
    assert torch.equal(mean.finish(), total / (sum(weights) / weights[0]))


def test_fednova_by_hand() -> None:
    """Weights 1/4 and 3/4; 2 and 6 steps: tau_eff = 5, and 5 · (1/4 · 2/2 + 3/4 · 12/6) = 8.75; FedAvg has 9.5."""
    work = {2.0: LocalWork(2, 2), 12.0: LocalWork(6, 6)}
    nova, average = FedNova(1), WeightedMean(1)
    for aggregator in (nova, average):
        aggregator.add(torch.tensor([2.0]), 10.0, work[2.0])
        aggregator.add(torch.tensor([12.0]), 30.0, work[12.0])
    assert nova.finish().tolist() == [8.75]
    assert average.finish().tolist() == [9.5]


def test_a_partial_update_by_hand() -> None:
    """One did all, one a quarter: weights 4/5 and 1/5, and (4/5 + 1/5 · 1/4) · (4/5 · 8 + 1/5 · 4 / (1/4)) = 8.16."""
    mean = WeightedMean(1)
    mean.add(torch.tensor([8.0]), 5.0, LocalWork(40, 40))
    mean.add(torch.tensor([4.0]), 5.0, LocalWork(10, 40))
    assert mean.finish().item() == pytest.approx(8.16)


def test_a_single_step_of_a_thousand_is_not_blown_up_and_dilutes_nothing() -> None:
    mean = WeightedMean(1)
    for _ in range(9):
        mean.add(torch.tensor([1.0]), 1.0)
    mean.add(torch.tensor([1.0]), 1.0, LocalWork(1, 1000))
    assert mean.finish().item() == pytest.approx(1.11, abs=0.01)


def test_fednova_goes_to_the_minimum_of_what_the_clients_lose_together_and_fedavg_does_not() -> None:
    """Quadratics with minima at 0 and 1, equal weights, 2 and 20 local steps of gradient descent."""

    def rounds(aggregator: Aggregator) -> float:
        model = 0.5
        for _ in range(400):
            for optimum, steps in ((0.0, 2), (1.0, 20)):
                local = model
                for _ in range(steps):
                    local -= 0.001 * (local - optimum)
                aggregator.add(torch.tensor([local - model]), 1.0, LocalWork(steps, steps))
            model += aggregator.finish().item()
        return model

    assert rounds(FedNova(1)) == pytest.approx(0.5, abs=0.01)
    assert rounds(WeightedMean(1)) == pytest.approx(10 / 11, abs=0.02)


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
