from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.selection.evaluation import Ranks, evaluation_cohort

names = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=40, unique=True)
seeds = st.integers(0, 2**63 - 1)


@given(names, st.integers(1, 50), seeds)
def test_the_order_of_arrival_does_not_matter(there: list[str], size: int, seed: int) -> None:
    cohort = evaluation_cohort(there, size, seed)
    assert cohort == evaluation_cohort(sorted(there, reverse=True), size, seed)
    assert len(cohort) == min(size, len(there)) == len(set(cohort))
    assert set(cohort) <= set(there)


@given(names, st.integers(1, 50), seeds, st.data())
def test_a_client_that_goes_costs_the_cohort_one_place_at_most(
    there: list[str], size: int, seed: int, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(there))
    before = evaluation_cohort(there, size, seed)
    after = evaluation_cohort([name for name in there if name != gone], size, seed)
    if gone in before:
        assert set(before) - set(after) == {gone}
        assert len(set(after) - set(before)) <= 1
    else:
        assert after == before


def test_a_client_that_comes_back_has_its_place_again() -> None:
    fleet = [f"client-{number}" for number in range(100)]
    before = evaluation_cohort(fleet, 20, 7)
    assert evaluation_cohort([*fleet[50:], *fleet[:50]], 20, 7) == before


def test_seeds_draw_independently_and_every_client_is_as_likely() -> None:
    fleet = [f"client-{number}" for number in range(20)]
    drawn = Counter(name for seed in range(2000) for name in evaluation_cohort(fleet, 5, seed))
    # 500 expected, standard deviation 19.
    assert len(drawn) == 20
    assert all(420 < count < 580 for count in drawn.values())


def test_the_draw_is_the_same_in_every_process_and_release() -> None:
    assert evaluation_cohort([f"c{number}" for number in range(6)], 3, 2024) == ("c4", "c5", "c1")


@given(names, st.integers(1, 50), seeds, st.integers(1, 7), st.data())
def test_ranks_that_are_kept_give_the_same_cohort(
    there: list[str], size: int, seed: int, at_once: int, data: st.DataObject
) -> None:
    ranks, rows = Ranks(seeds=2), np.array(there, object)
    for other in (seed, seed + 1, seed + 2, seed):  # more seeds than are kept
        while ranks.hash_some(rows, other, at_once):
            pass
        among = data.draw(st.lists(st.sampled_from(range(len(there))), min_size=1, unique=True))
        found = ranks.cohort(rows, np.array(among, np.intp), size, other)
        assert found == evaluation_cohort([there[row] for row in among], size, other)


def test_clients_that_come_later_are_ranked_when_they_do() -> None:
    rows = np.array([f"c{number}" for number in range(50)], object)
    ranks = Ranks()
    ranks.cohort(rows[:20], np.arange(20), 5, 7)
    assert ranks.cohort(rows, np.arange(50), 5, 7) == evaluation_cohort(rows.tolist(), 5, 7)
