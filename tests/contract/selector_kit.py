"""What every selector must pass: subclass `SelectorContract` and say how one is made."""

import random
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedstep.server.selection.base import Candidates, Part, RoundSeen, Selection, SelectionContext, Selector

# Every subclass runs the same inherited test: that is the point of a kit.
inherited = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.differing_executors])

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True)
seeds = st.integers(0, 2**32)
factors = st.floats(1.0, 10.0)
log_seconds = st.one_of(st.just(np.nan), st.floats(-5.0, 8.0))


@st.composite
def _candidates(draw: st.DrawFn) -> Candidates:
    there = draw(names)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=len(there), max_size=len(there)))

    log_time = np.array(column(log_seconds))
    steps = np.array(column(st.integers(1, 1000)))
    beside_s = np.where(np.isnan(log_time), np.nan, np.exp(log_time) / 10)
    return Candidates.of(
        there,
        train_samples=column(st.integers(1, 10**9)),
        steps=steps,
        log_time=log_time,
        log_time_sd=np.where(np.isnan(log_time), np.nan, column(st.floats(0.1, 2.0))),
        beside_s=beside_s,
        step_s=beside_s * 9 / steps,
        loss=column(st.one_of(st.just(np.nan), st.floats(0.0, 100.0))),
        trained=column(st.integers(0, 50)),
        missed=column(st.integers(0, 50)),
        waited=column(st.integers(0, 200)),
        unasked=column(st.integers(0, 200)),
        unmissed=column(st.integers(0, 200)),
    )


candidates = _candidates()
"""Clients of which everything, something or nothing is known."""

rounds_seen = st.lists(
    st.builds(
        RoundSeen,
        trial=st.integers(0, 3),
        round=st.integers(0, 50),
        parts=st.lists(
            st.builds(Part, st.text(min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 100)),
            max_size=3,
        ),
        seconds=st.floats(0.0, 100.0),
        loss=st.one_of(st.none(), st.floats(0.0, 10.0)),
    ),
    max_size=45,
)


def context(seed: int = 0, over_selection: float = 1.0, deadline_s: float = 60.0, **changes: Any) -> SelectionContext:
    """A round's context with a generator of its own."""
    fields = {"trial": 3, "round": 5, "clients": 30, "draws": 200} | changes
    return SelectionContext(
        rng=np.random.default_rng(seed), over_selection=over_selection, deadline_s=deadline_s, **fields
    )


class SelectorContract(ABC):
    """The promises of `Selector`."""

    @abstractmethod
    def make(self) -> Selector:
        """A fresh selector."""

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors, st.integers(1, 3), rounds_seen)
    def test_the_cohort_is_a_subset_that_can_bring_what_is_wanted(
        self, there: Candidates, wanted: int, seed: int, factor: float, attempt: int, seen: list[RoundSeen]
    ) -> None:
        selector = self.made_after(seen)
        selection = selector.select(there, wanted, context(seed, factor, attempt=attempt))
        assert set(selection.cohort) <= set(there.names)
        assert len(set(selection.cohort)) == len(selection.cohort)
        assert 1 <= selection.wanted <= len(selection.cohort)
        assert 0 < selection.deadline_s <= 60.0
        assert 0 <= selection.latest_s <= 60.0
        assert set(selection.step_budgets) <= set(selection.cohort)
        assert {*selection.unhurried, *selection.newcomers} <= set(selection.cohort)
        assert all(type(steps) is int and steps >= 1 for steps in selection.step_budgets.values())

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors, st.randoms(use_true_random=False))
    def test_the_order_of_the_candidates_does_not_matter(
        self, there: Candidates, wanted: int, seed: int, factor: float, shuffler: random.Random
    ) -> None:
        order = [*range(len(there))]
        shuffler.shuffle(order)
        mixed = {name: column[order] for name, column in vars(there).items() if name != "keys"}
        shuffled = Candidates.of(mixed.pop("names"), **mixed)
        assert self.select(shuffled, wanted, seed, factor) == self.select(there, wanted, seed, factor)

    @inherited
    @given(candidates, st.integers(0, 40), seeds, factors, rounds_seen)
    def test_only_what_it_observes_is_kept_and_told_again_it_stands_where_it_stood(
        self, there: Candidates, wanted: int, seed: int, factor: float, seen: list[RoundSeen]
    ) -> None:
        used = self.make()
        for number, each in enumerate(seen):
            used.select(there, 1, context(seed + number))
            used.observe(each)
        used.select(there, 1, context(seed + 1))
        told_again = self.made_after(seen)
        assert used.select(there, wanted, context(seed, factor)) == told_again.select(
            there, wanted, context(seed, factor)
        )

    @inherited
    @given(candidates, seeds)
    def test_wanted_0_asks_everybody(self, there: Candidates, seed: int) -> None:
        selection = self.make().select(there, 0, context(seed))
        assert set(selection.cohort) == set(there.names)
        assert selection.wanted == len(there)

    @inherited
    @given(candidates, st.integers(1, 40), seeds, factors, rounds_seen, st.data())
    def test_a_round_drawn_again_has_the_same_clients_whatever_was_learnt_since(
        self,
        there: Candidates,
        wanted: int,
        seed: int,
        factor: float,
        seen: list[RoundSeen],
        data: st.DataObject,
    ) -> None:
        first = self.make().select(there, wanted, context(seed, factor))
        learnt = data.draw(st.permutations(range(len(there))))
        known = replace(there, **{name: getattr(there, name)[learnt] for name in _LEARNT})
        again = self.made_after(seen).select(known, wanted, context(seed, factor, earlier=first.cohort))
        assert set(again.cohort) == set(first.cohort)
        assert again.wanted == first.wanted

    def select(self, there: Candidates, wanted: int, seed: int, factor: float) -> Selection:
        """A selection by a fresh selector."""
        return self.make().select(there, wanted, context(seed, factor))

    def made_after(self, seen: list[RoundSeen]) -> Selector:
        """A selector that has observed these."""
        selector = self.make()
        for each in seen:
            selector.observe(each)
        return selector


_LEARNT = (
    "log_time",
    "log_time_sd",
    "step_s",
    "beside_s",
    "loss",
    "trained",
    "missed",
    "waited",
    "unasked",
    "unmissed",
)
