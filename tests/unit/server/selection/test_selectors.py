from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.selector_kit import SelectorContract, candidates, context, inherited
from fedstep.server.selection.base import Candidates, Selector
from fedstep.server.selection.deadline import DeadlineOptions, DeadlineSelector
from fedstep.server.selection.everyone import Everyone
from fedstep.server.selection.oort import OortOptions, OortSelector
from fedstep.server.selection.power_of_choice import PowerOfChoice, PowerOfChoiceOptions
from fedstep.server.selection.uniform import Uniform

TEN = Candidates.of(f"c{number}" for number in range(10))


class TestEveryone(SelectorContract):
    def make(self) -> Selector:
        return Everyone()

    @inherited
    @given(candidates, st.integers(0, 40), st.floats(1.0, 10.0))
    def test_everybody_is_asked_and_waited_for_whatever_is_wanted(
        self, there: Candidates, wanted: int, factor: float
    ) -> None:
        selection = self.make().select(there, wanted, context(over_selection=factor))
        assert list(selection.cohort) == sorted(there.names)
        assert selection.wanted == len(there)

    def test_the_studys_deadline_holds(self) -> None:
        assert self.make().select(TEN, 3, context(deadline_s=12.5)).deadline_s == 12.5


class TestUniform(SelectorContract):
    def make(self) -> Selector:
        return Uniform()

    @pytest.mark.parametrize(
        ("wanted", "factor", "asked", "closes_at"),
        [
            (3, 1.0, 3, 3),
            (3, 1.5, 5, 3),
            (3, 1.01, 4, 3),
            (5, 1.2, 6, 5),
            (5, 10.0, 10, 5),
            (10, 1.1, 10, 10),
            (99, 1.5, 10, 10),
            (0, 1.5, 10, 10),
            (1, 1.0, 1, 1),
        ],
    )
    def test_asks_over_selection_times_what_is_wanted(
        self, wanted: int, factor: float, asked: int, closes_at: int
    ) -> None:
        selection = self.make().select(TEN, wanted, context(over_selection=factor))
        assert len(selection.cohort) == asked
        assert selection.wanted == closes_at

    def test_ten_times_one_point_one_is_eleven(self) -> None:
        there = Candidates.of(f"c{number}" for number in range(30))
        assert len(self.make().select(there, 10, context(over_selection=1.1)).cohort) == 11

    def test_every_client_is_as_likely_as_any_other(self) -> None:
        rounds = 3000
        drawn = Counter(name for seed in range(rounds) for name in self.make().select(TEN, 3, context(seed)).cohort)
        # 900 expected, standard deviation 25; the seeds are fixed, so this either always passes or never.
        assert len(drawn) == 10
        assert all(800 < count < 1000 for count in drawn.values())

    def test_another_seed_draws_another_cohort(self) -> None:
        assert len({self.make().select(TEN, 3, context(seed)).cohort for seed in range(20)}) > 10

    def test_the_studys_deadline_holds(self) -> None:
        assert self.make().select(TEN, 3, context(deadline_s=12.5)).deadline_s == 12.5


class TestDeadline(SelectorContract):
    def make(self) -> Selector:
        return DeadlineSelector(DeadlineOptions())


class TestOort(SelectorContract):
    def make(self) -> Selector:
        return OortSelector(OortOptions(most_rounds=10))


class TestPowerOfChoice(SelectorContract):
    def make(self) -> Selector:
        return PowerOfChoice(PowerOfChoiceOptions())
