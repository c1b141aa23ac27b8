"""What every selector must pass: subclass `SelectorContract` and say how one is made."""

from abc import ABC, abstractmethod

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedstep.server.selection.base import Candidate, Selection, SelectionContext, Selector

# Every subclass runs the same inherited test: that is the point of a kit.
inherited = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.differing_executors])

candidates = st.lists(
    st.builds(Candidate, st.text(min_size=1, max_size=8), st.integers(1, 10**9), st.integers(0, 1000)),
    min_size=1,
    max_size=30,
    unique_by=lambda candidate: candidate.name,
)
seeds = st.integers(0, 2**32)
factors = st.floats(1.0, 10.0)


def context(seed: int = 0, over_selection: float = 1.0, deadline_s: float = 60.0) -> SelectionContext:
    """A round's context with a generator of its own."""
    return SelectionContext(
        trial=3, round=5, rng=np.random.default_rng(seed), over_selection=over_selection, deadline_s=deadline_s
    )


class SelectorContract(ABC):
    """The promises of `Selector`."""

    @abstractmethod
    def make(self) -> Selector:
        """A fresh selector."""

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors)
    def test_the_cohort_is_a_subset_that_can_bring_what_is_wanted(
        self, there: list[Candidate], wanted: int, seed: int, factor: float
    ) -> None:
        selection = self.make().select(there, wanted, context(seed, factor))
        assert set(selection.cohort) <= {candidate.name for candidate in there}
        assert len(set(selection.cohort)) == len(selection.cohort)
        assert 1 <= selection.wanted <= len(selection.cohort)
        assert selection.deadline_s > 0

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors, st.randoms(use_true_random=False))
    def test_the_order_of_the_candidates_does_not_matter(
        self, there: list[Candidate], wanted: int, seed: int, factor: float, random: np.random.Generator
    ) -> None:
        shuffled = list(there)
        random.shuffle(shuffled)
        assert self.select(shuffled, wanted, seed, factor) == self.select(there, wanted, seed, factor)

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors)
    def test_nothing_is_kept_from_one_round_for_the_next(
        self, there: list[Candidate], wanted: int, seed: int, factor: float
    ) -> None:
        used = self.make()
        used.select(there[:1], 1, context(seed + 1))
        assert used.select(there, wanted, context(seed, factor)) == self.select(there, wanted, seed, factor)

    @inherited
    @given(candidates, seeds)
    def test_wanted_0_asks_and_waits_for_everybody(self, there: list[Candidate], seed: int) -> None:
        selection = self.make().select(there, 0, context(seed))
        assert set(selection.cohort) == {candidate.name for candidate in there}
        assert selection.wanted == len(there)

    def select(self, there: list[Candidate], wanted: int, seed: int, factor: float) -> Selection:
        """A selection by a fresh selector."""
        return self.make().select(there, wanted, context(seed, factor))
