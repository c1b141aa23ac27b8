"""Partitions: one data set split among clients, the same in every process that splits it.

A partition is a list of shares, one a client: sorted positions in the data set, int64. Every position is in exactly
one share and no share is empty. The same arguments give the same shares, on any machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedstep.client.task_options import known_name, positive_number, whole_number
from fedstep.common.errors import InvalidInputError

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Positions in a data set, or its labels, int64 [samples]."""

PARTITIONERS = ("iid", "dirichlet", "shards", "quantity", "natural")
"""What the option `partitioner` may be."""

_DRAWS = 200
_MOST_ALPHA = 1e9
"""Shares are equal long before; a Dirichlet draw of still greater numbers overflows."""


def iid_partition(samples: int, clients: int, seed: int) -> list[Indices]:
    """Shares drawn without regard to anything, of the same size or one sample more.

    Raises:
        InvalidInputError: There are more clients than samples.
    """
    _check(samples, clients)
    order = np.random.default_rng([seed, clients]).permutation(samples)
    return [np.sort(share) for share in np.array_split(order, clients)]


def dirichlet_partition(labels: Indices, clients: int, seed: int, alpha: float = 1.0) -> list[Indices]:
    """Label skew: every label's samples go to the clients in proportions drawn from a Dirichlet distribution.

    Hsu et al. 2019, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, in
    the form of Yurochkin et al. 2019 that draws for each label: sizes differ as well as labels. It is drawn again, up
    to 200 times, while a client has next to nothing; whoever has nothing even then is given samples of the largest.

    Args:
        labels: [samples].
        clients: How many shares.
        seed: Of the draws.
        alpha: The distribution's concentration; less is more skewed.

    Raises:
        InvalidInputError: There are more clients than samples.
    """
    _check(len(labels), clients)
    rng = np.random.default_rng([seed, clients])
    fewest = min(20, len(labels) // (4 * clients))
    owners = np.empty(len(labels), dtype=np.int64)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(_DRAWS):
        for positions in members:
            samples = rng.permutation(positions)
            bounds = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * len(samples)
            owners[samples] = np.searchsorted(bounds, np.arange(len(samples)), side="right")
        if np.bincount(owners, minlength=clients).min() >= fewest:
            break
    return _without_empty(_shares_of(owners, clients))


def shard_partition(labels: Indices, clients: int, seed: int, shards: int = 2) -> list[Indices]:
    """Pathological label skew: samples sorted by label are cut into equal shards, and each client gets a few.

    McMahan et al. 2017, Communication-Efficient Learning of Deep Networks from Decentralized Data, with two shards a
    client: most have two labels.

    Args:
        labels: [samples].
        clients: How many shares.
        seed: Of which samples are in a shard, and of who gets it.
        shards: Of each client.

    Raises:
        InvalidInputError: There are more shards than samples.
    """
    _check(len(labels), clients)
    count = clients * shards
    if count > len(labels):
        raise InvalidInputError(
            f"{len(labels)} samples cannot be cut into {count} shards, {shards} for each of {clients} clients: give "
            "fewer with --option shards=N, or have fewer clients."
        )
    rng = np.random.default_rng([seed, clients])
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    cut = np.array_split(order, count)
    dealt = rng.permutation(count).reshape(clients, shards)
    return [np.sort(np.concatenate([cut[shard] for shard in mine])) for mine in dealt]


def quantity_partition(samples: int, clients: int, seed: int, alpha: float = 1.0) -> list[Indices]:
    """Quantity skew: every client has the same mix of labels, and sizes are drawn from a Dirichlet distribution.

    Li et al. 2022, Federated Learning on Non-IID Data Silos: An Experimental Study. Each client has a sample first;
    the proportions are of the rest.

    Args:
        samples: How many there are.
        clients: How many shares.
        seed: Of the draws.
        alpha: The distribution's concentration; less is more skewed.

    Raises:
        InvalidInputError: There are more clients than samples.
    """
    _check(samples, clients)
    rng = np.random.default_rng([seed, clients])
    order = rng.permutation(samples)
    bounds = np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * (samples - clients)
    ends = np.floor(bounds).astype(np.int64) + np.arange(1, clients)
    return [np.sort(share) for share in np.split(order, ends)]


def natural_partition(groups: np.ndarray, clients: int, seed: int, noun: str = "groups") -> list[Indices]:
    """By a natural column, such as the writer or the hospital: nobody's samples are split.

    With as many clients as groups each client is one group. With fewer the groups are dealt out in turn.

    Args:
        groups: Whose each sample is, [samples] of anything that sorts.
        clients: How many shares.
        seed: Of the order in which groups are dealt.
        noun: What a group is, for the message.

    Raises:
        InvalidInputError: There are more clients than groups.
    """
    names, of = np.unique(groups, return_inverse=True)
    if clients > len(names):
        raise InvalidInputError(
            f"{len(names)} {noun} cannot be split among {clients} clients: have at most {len(names)}, such as "
            f"--partition 1/{len(names)}."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    owners = np.empty(len(names), dtype=np.int64)
    owners[order] = np.arange(len(names)) % clients
    return _shares_of(owners[of], clients)


@dataclass(frozen=True)
class Partitioner:
    """How a data set is split, as the options of a task say.

    Attributes:
        name: One of `PARTITIONERS`.
        seed: Of all that is drawn.
        alpha: Of `dirichlet` and `quantity`.
        shards: Of `shards`.
    """

    name: str
    seed: int = 0
    alpha: float = 0.5
    shards: int = 2

    @classmethod
    def of(cls, options: Mapping[str, str], default: str = "dirichlet") -> "Partitioner":
        """Reads the options `partitioner`, `alpha`, `shards` and `partition_seed`.

        Args:
            options: A task's.
            default: The partitioner where none is named.

        Raises:
            InvalidInputError: A name is unknown or a number impossible.
        """
        return cls(
            name=known_name(options, "partitioner", default, PARTITIONERS),
            seed=whole_number(options, "partition_seed", cls.seed, low=0),
            alpha=positive_number(options, "alpha", cls.alpha, most=_MOST_ALPHA),
            shards=whole_number(options, "shards", cls.shards, low=1),
        )

    def split(
        self, labels: Indices, clients: int, groups: np.ndarray | None = None, noun: str = "groups"
    ) -> list[Indices]:
        """The shares of so many clients.

        Args:
            labels: [samples].
            clients: How many shares.
            groups: Whose each sample is, [samples]; None where the data set has no natural column.
            noun: What a group is, for messages.

        Raises:
            InvalidInputError: The data cannot be split like that.
        """
        match self.name:
            case "iid":
                return iid_partition(len(labels), clients, self.seed)
            case "dirichlet":
                return dirichlet_partition(labels, clients, self.seed, self.alpha)
            case "shards":
                return shard_partition(labels, clients, self.seed, self.shards)
            case "quantity":
                return quantity_partition(len(labels), clients, self.seed, self.alpha)
        if groups is None:
            raise InvalidInputError(
                "partitioner=natural needs data that say whose each sample is, and these do not: give one of "
                f"{', '.join(name for name in PARTITIONERS if name != 'natural')}."
            )
        return natural_partition(groups, clients, self.seed, noun)


def _check(samples: int, clients: int) -> None:
    if clients > samples:
        raise InvalidInputError(f"{samples} samples cannot be split into {clients} shares: give fewer with I/N.")


def _shares_of(owners: Indices, clients: int) -> list[Indices]:
    """Each client's positions, where `owners` names a client for each sample."""
    ends = np.cumsum(np.bincount(owners, minlength=clients))[:-1]
    return np.split(np.argsort(owners, kind="stable"), ends)


def _without_empty(shares: list[Indices]) -> list[Indices]:
    """The same, and a sample of the largest share for each one that is empty."""
    for index, share in enumerate(shares):
        if not len(share):
            largest = max(range(len(shares)), key=lambda other: len(shares[other]))
            shares[index], shares[largest] = shares[largest][:1], shares[largest][1:]
    return shares
