"""What every aggregator must pass: subclass `AggregatorContract` and say how one is made."""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.local_work import WHOLE, LocalWork

# Every subclass runs the same inherited test: that is the point of a kit.
inherited = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.differing_executors])

updates = st.lists(
    st.tuples(st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5), st.floats(1, 1e9)),
    min_size=1,
    max_size=12,
)
works = st.builds(lambda due, share: LocalWork(due * share, due), st.floats(1, 1e3), st.floats(0.05, 1))
partial = st.lists(st.tuples(updates.map(lambda some: some[0]), works), min_size=1, max_size=12)


class AggregatorContract(ABC):
    """The promises of `Aggregator`."""

    @abstractmethod
    def make(self, elements: int) -> Aggregator:
        """A fresh aggregator for updates of that length."""

    @abstractmethod
    def expected(
        self,
        updates: NDArray[np.float64],
        weights: NDArray[np.float64],
        done: NDArray[np.float64],
        due: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """What it should make of updates [count, elements], their weights [count] and their work [count], in float64.

        Args:
            updates: As they were added.
            weights: The same.
            done: Effective local steps taken.
            due: Effective local steps that were asked for.
        """

    @inherited
    @given(partial)
    def test_combines_as_its_definition_in_float64(
        self, given: list[tuple[tuple[list[float], float], LocalWork]]
    ) -> None:
        aggregator = self.make(5)
        for (values, weight), work in given:
            aggregator.add(torch.tensor(values), weight, work)
        combined = aggregator.finish()
        assert combined.dtype is torch.float32
        assert combined.shape == (5,)
        exact = self.expected(
            np.array([values for (values, _), _ in given], dtype=np.float64),
            np.array([weight for (_, weight), _ in given]),
            np.array([work.done for _, work in given]),
            np.array([work.due for _, work in given]),
        )
        largest = max(abs(x) for (values, _), _ in given for x in values)
        longest = max(1.0, *(a.done / b.done for _, a in given for _, b in given))
        np.testing.assert_allclose(combined.double().numpy(), exact, rtol=1e-5, atol=1e-6 * largest * longest)

    @inherited
    @given(updates, works)
    def test_the_same_work_of_everybody_changes_nothing(
        self, given: list[tuple[list[float], float]], work: LocalWork
    ) -> None:
        results = []
        for each in (WHOLE, work):
            aggregator = self.make(5)
            for values, weight in given:
                aggregator.add(torch.tensor(values), weight, each)
            results.append(aggregator.finish())
        assert torch.equal(*results)

    def test_partial_work_counts_by_its_part(self) -> None:
        """Two clients of like data and opposite directions, of equal strength a step: who did more wins by that."""
        aggregator = self.make(1)
        aggregator.add(torch.tensor([-10.0]), 3.0, LocalWork(10.0, 10.0))
        aggregator.add(torch.tensor([5.0]), 3.0, LocalWork(5.0, 10.0))
        whole, part = 2 / 3, 1 / 3
        assert aggregator.finish().item() == pytest.approx((whole + part / 2) * (whole * -10 + part * 10))

    @inherited
    @given(updates)
    def test_same_updates_in_the_same_order_give_the_same_bits(self, given: list[tuple[list[float], float]]) -> None:
        results = []
        for _ in range(2):
            aggregator = self.make(5)
            for values, weight in given:
                aggregator.add(torch.tensor(values), weight)
            results.append(aggregator.finish())
        assert results[0].numpy().tobytes() == results[1].numpy().tobytes()

    def test_a_round_leaves_nothing_behind_for_the_next(self) -> None:
        used, fresh = self.make(3), self.make(3)
        used.add(torch.tensor([1e30, -1e30, 5.0]), 1e9)
        used.finish()
        assert used.count == 0
        for aggregator in (used, fresh):
            aggregator.add(torch.tensor([1.0, 2.0, 3.0]), 7.0)
            aggregator.add(torch.tensor([3.0, 2.0, 1.0]), 2.0)
        assert torch.equal(used.finish(), fresh.finish())

    def test_what_a_round_gave_is_the_callers_to_keep(self) -> None:
        aggregator = self.make(2)
        aggregator.add(torch.tensor([1.0, 2.0]), 1.0)
        kept = aggregator.finish()
        aggregator.add(torch.tensor([8.0, 9.0]), 1.0)
        assert kept.tolist() == [1.0, 2.0]
        kept.fill_(100.0)
        assert aggregator.finish().tolist() == [8.0, 9.0]

    def test_does_not_keep_or_change_the_update(self) -> None:
        aggregator = self.make(2)
        update = torch.tensor([1.0, 2.0])
        for _ in range(3):
            aggregator.add(update, 2.0)
            assert update.tolist() == [1.0, 2.0]
        update.fill_(float("nan"))
        assert aggregator.finish().tolist() == [1.0, 2.0]

    def test_counts_updates_since_the_last_finish(self) -> None:
        aggregator = self.make(1)
        assert aggregator.count == 0
        for expected in (1, 2, 3):
            aggregator.add(torch.tensor([1.0]), 1.0)
            assert aggregator.count == expected
        aggregator.finish()
        assert aggregator.count == 0

    def test_finish_without_an_update_is_refused(self) -> None:
        aggregator = self.make(1)
        with pytest.raises(ValueError, match="no update"):
            aggregator.finish()
        aggregator.add(torch.tensor([1.0]), 1.0)
        aggregator.finish()
        with pytest.raises(ValueError, match="no update"):
            aggregator.finish()

    @pytest.mark.parametrize(
        "update",
        [
            torch.ones(1),  # would be broadcast
            torch.ones(4),
            torch.ones(3, 1),
            torch.ones(3, dtype=torch.float64),
            torch.ones(3, dtype=torch.int32),
        ],
        ids=["too short", "too long", "wrong shape", "float64", "int32"],
    )
    def test_a_misshapen_update_is_refused_and_changes_nothing(self, update: torch.Tensor) -> None:
        aggregator = self.make(3)
        aggregator.add(torch.tensor([1.0, 2.0, 3.0]), 1.0)
        with pytest.raises(ValueError, match="float32"):
            aggregator.add(update, 1.0)
        assert aggregator.count == 1
        assert aggregator.finish().tolist() == [1.0, 2.0, 3.0]

    @pytest.mark.parametrize(
        "work",
        [LocalWork(0.0, 1.0), LocalWork(-1.0, 1.0), LocalWork(2.0, 1.0), LocalWork(1.0, float("inf"))],
        ids=["none", "negative", "more than was due", "without end"],
    )
    def test_impossible_work_is_refused_and_changes_nothing(self, work: LocalWork) -> None:
        aggregator = self.make(1)
        aggregator.add(torch.tensor([1.0]), 1.0)
        with pytest.raises(ValueError, match="work"):
            aggregator.add(torch.tensor([9.0]), 1.0, work)
        assert aggregator.count == 1
        assert aggregator.finish().tolist() == [1.0]

    @pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
    def test_an_impossible_weight_is_refused_and_changes_nothing(self, weight: float) -> None:
        aggregator = self.make(1)
        aggregator.add(torch.tensor([1.0]), 1.0)
        with pytest.raises(ValueError, match="weight"):
            aggregator.add(torch.tensor([9.0]), weight)
        assert aggregator.count == 1
        assert aggregator.finish().tolist() == [1.0]
