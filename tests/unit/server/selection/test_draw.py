from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.selection.draw import first, key_of, uniforms, weighted

KEYS = np.array([key_of(f"c{number}") for number in range(40)], np.uint64)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_clients_number_does_not_hang_on_who_else_is_there() -> None:
    everyone = uniforms(KEYS, rng(1))
    assert np.array_equal(uniforms(KEYS[[5, 3]], rng(1)), everyone[[5, 3]])
    assert not np.array_equal(uniforms(KEYS, rng(2)), everyone)
    assert ((everyone > 0) & (everyone < 1)).all()


def test_numbers_are_spread_evenly() -> None:
    drawn = np.concatenate([uniforms(KEYS, rng(seed)) for seed in range(500)])
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert counts.min() > 1800
    assert counts.max() < 2200


def test_draws_are_in_proportion_to_the_weights() -> None:
    weights = np.array([1.0, 2.0, 4.0, 1.0, 0.0])
    drawn = Counter(int(weighted(uniforms(KEYS[:5], rng(seed)), weights, np.arange(5), 1)[0]) for seed in range(4000))
    assert 900 < drawn[1] < 1100
    assert 1900 < drawn[2] < 2100
    assert drawn[4] == 0


def test_who_has_no_weight_is_drawn_last() -> None:
    weights = np.array([np.nan, 1.0, 0.0, 1e-9])
    for seed in range(50):
        drawn = weighted(uniforms(KEYS[:4], rng(seed)), weights, np.arange(4), 4)
        assert set(drawn[:2]) == {1, 3}
        assert set(drawn) == {0, 1, 2, 3}


@given(st.integers(0, 99), st.integers(1, 20), st.integers(0, 39))
def test_one_who_goes_moves_one_place_at_most(seed: int, count: int, gone: int) -> None:
    weights = np.linspace(1, 3, 40)
    uniform = uniforms(KEYS, rng(seed))
    before = weighted(uniform, weights, np.arange(40), count)
    after = weighted(uniform, weights, np.delete(np.arange(40), gone), count)
    assert len(set(before) - set(after)) <= 1


@given(st.lists(st.floats(-9, 9), max_size=30), st.integers(0, 40))
def test_the_least_come_first(values: list[float], count: int) -> None:
    assert [values[place] for place in first(np.array(values), count)] == sorted(values)[:count]


def test_a_clients_number_is_the_same_in_every_release() -> None:
    assert key_of("client-7") == 3235277403484583931
