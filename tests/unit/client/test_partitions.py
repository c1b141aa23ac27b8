import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.client.partitions import (
    PARTITIONERS,
    Partitioner,
    dirichlet_partition,
    iid_partition,
    natural_partition,
    quantity_partition,
    shard_partition,
)
from fedstep.common.errors import InvalidInputError

labels_of = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.int64))
partitioners = st.builds(
    Partitioner,
    name=st.sampled_from(PARTITIONERS),
    seed=st.integers(0, 5),
    alpha=st.sampled_from([0.001, 0.1, 1.0, 100.0]),
    shards=st.just(1),
)


@given(partitioners, labels_of, st.integers(1, 60))
def test_every_sample_goes_to_exactly_one_client_and_no_client_has_none(
    how: Partitioner, labels: np.ndarray, clients: int
) -> None:
    groups = np.arange(len(labels)) // 2
    clients = min(clients, len(np.unique(groups)))
    shares = how.split(labels, clients, groups)
    assert len(shares) == clients
    assert sorted(np.concatenate(shares)) == list(range(len(labels)))
    for share in shares:
        assert len(share) > 0
        assert share.dtype == np.int64
        assert sorted(share) == share.tolist()
    again = how.split(labels, clients, groups)
    assert all(np.array_equal(a, b) for a, b in zip(shares, again, strict=True))


@pytest.mark.parametrize("name", PARTITIONERS)
def test_another_seed_splits_otherwise(name: str) -> None:
    labels, groups = np.arange(1000) % 10, np.arange(1000) // 20
    first, second = (Partitioner(name, seed).split(labels, 10, groups) for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("clients", "seed", "alpha", "digest"),
    [(8, 20240607, 1.0, "2969b4398c78edda"), (100, 20240608, 0.5, "f2e1b2db5432b2bf")],
)
def test_the_shares_that_figures_in_the_benchmarks_depend_on_stay(
    clients: int, seed: int, alpha: float, digest: str
) -> None:
    shares = dirichlet_partition(np.arange(3000) * 7919 % 10, clients, seed, alpha)
    assert hashlib.sha256(b"|".join([*(share.tobytes() for share in shares), b""])).hexdigest()[:16] == digest


@given(st.integers(1, 500), st.integers(1, 50))
def test_iid_shares_are_of_one_size(samples: int, clients: int) -> None:
    clients = min(clients, samples)
    sizes = [len(share) for share in iid_partition(samples, clients, 0)]
    assert max(sizes) - min(sizes) <= 1


def test_iid_shares_have_the_mix_of_the_whole() -> None:
    labels = np.repeat(np.arange(4), [4000, 3000, 2000, 1000])
    for share in iid_partition(len(labels), 5, 0):
        assert np.allclose(mix(labels[share], 4), [0.4, 0.3, 0.2, 0.1], atol=0.05)


def test_less_alpha_is_more_label_skew() -> None:
    labels = np.arange(20_000) % 10

    def labels_that_matter(alpha: float) -> float:
        """The perplexity of a client's labels, averaged over clients: 10 where all are as frequent."""
        mixes = [mix(labels[share], 10) for share in dirichlet_partition(labels, 20, 0, alpha)]
        return float(np.mean([np.exp(-np.sum(p * np.log(np.maximum(p, 1e-12)))) for p in mixes]))

    few, some, all_ten = (labels_that_matter(alpha) for alpha in (0.05, 0.5, 1000.0))
    assert few < 3.5 < some < 9 < 9.95 < all_ten


def test_dirichlet_proportions_are_those_of_the_distribution() -> None:
    """A label's part of a client is Beta(alpha, (clients - 1) alpha): its variance over many labels and seeds."""
    alpha, clients = 2.0, 4
    labels = np.arange(40_000) % 40
    parts = [
        np.bincount(labels[share], minlength=40) / 1000
        for seed in range(5)
        for share in dirichlet_partition(labels, clients, seed, alpha)
    ]
    mean = 1 / clients
    assert np.mean(parts) == pytest.approx(mean)
    assert np.var(parts) == pytest.approx(mean * (1 - mean) / (clients * alpha + 1), rel=0.15)


def test_two_shards_are_two_labels_at_most() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 100))
    shares = shard_partition(labels, 50, seed=0)  # 100 shards of 10: none has two labels
    assert {len(share) for share in shares} == {20}
    kinds = [len(np.unique(labels[share])) for share in shares]
    assert set(kinds) == {1, 2}
    assert np.mean(kinds) > 1.7


def test_quantity_skew_is_of_sizes_and_not_of_labels() -> None:
    labels = np.arange(30_000) % 3
    shares = quantity_partition(len(labels), 20, seed=0, alpha=0.5)
    sizes = np.array([len(share) for share in shares])
    assert sizes.max() > 10 * sizes.min()
    for share in shares:
        if len(share) > 500:
            assert np.allclose(mix(labels[share], 3), 1 / 3, atol=0.08)
    even = [len(share) for share in quantity_partition(len(labels), 20, seed=0, alpha=1e6)]
    assert max(even) < 1.02 * min(even)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 3))
def test_nobodys_samples_are_split(writers: list[str], clients: int, seed: int) -> None:
    groups = np.array(writers)
    clients = min(clients, len(set(writers)))
    of = [set(groups[share].tolist()) for share in natural_partition(groups, clients, seed)]
    assert sum(len(names) for names in of) == len(set(writers))
    sizes = [len(names) for names in of]
    assert max(sizes) - min(sizes) <= 1


def test_as_many_clients_as_writers_have_one_each() -> None:
    groups = np.array([3, 1, 2, 0, 4, 4, 0])
    shares = natural_partition(groups, 5, seed=7)
    assert sorted(groups[share].tolist() for share in shares) == [[0, 0], [1], [2], [3], [4, 4]]


def test_options_say_how_to_split() -> None:
    options = {"partitioner": "shards", "shards": "3", "alpha": "0.1", "partition_seed": "5"}
    assert Partitioner.of(options) == Partitioner("shards", 5, 0.1, 3)
    assert Partitioner.of({}) == Partitioner("dirichlet", 0, 0.5, 2)
    assert Partitioner.of({}, default="iid").name == "iid"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"partitioner": "dirchlet"}, "did you mean dirichlet"),
        ({"partitioner": "zipf"}, "give one of iid, dirichlet, shards, quantity, natural"),
        ({"alpha": "0"}, "alpha=0 must be a number above 0"),
        ({"alpha": "1e308"}, "alpha=1e308 must be a number above 0 and at most 1e"),
        ({"alpha": "inf"}, "above 0"),
        ({"alpha": "much"}, "above 0"),
        ({"shards": "0"}, "at least 1"),
        ({"partition_seed": "-1"}, "at least 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        Partitioner.of(options)


@pytest.mark.parametrize("name", PARTITIONERS)
def test_more_clients_than_there_is_to_share_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be split"):
        Partitioner(name).split(np.zeros(3, np.int64), 4, np.arange(3))


def test_more_shards_than_samples_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="8 shards, 2 for each of 4 clients"):
        shard_partition(np.zeros(7, np.int64), 4, seed=0)


def test_what_has_no_natural_column_cannot_be_split_by_it() -> None:
    with pytest.raises(InvalidInputError, match="give one of iid, dirichlet, shards, quantity"):
        Partitioner("natural").split(np.zeros(3, np.int64), 2)


def mix(labels: np.ndarray, kinds: int) -> np.ndarray:
    return np.bincount(labels, minlength=kinds) / len(labels)
