"""Tasks whose data lie in one place and are split among the clients by a partitioner."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from fedstep.client.partitions import Indices, Partitioner
from fedstep.client.task_options import check_known
from fedstep.client.tasks.shares import client_data, name_generator, validation_share
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.validation import nearest

_SEED = 20241118
_OPTIONS = ("data", "validation", "partitioner", "alpha", "shards", "partition_seed")


@dataclass(frozen=True)
class Pool:
    """What there is to be split.

    Attributes:
        labels: [samples] int64.
        take: Inputs [chosen, ...] and targets [chosen] of some positions; only these are read.
        groups: Whose each sample is, as a position in `names`, [samples]; None without a natural column.
        names: Of the groups.
    """

    labels: Indices
    take: Callable[[Indices], tuple[torch.Tensor, torch.Tensor]]
    groups: Indices | None = None
    names: tuple[str, ...] = ()


@dataclass
class _Opened:
    """A pool that was read, and how it is split among so many clients, by their number."""

    pool: Pool
    shares: dict[int, list[Indices]] = field(default_factory=dict)


class PooledTask(Task):
    """Reads a pool and hands each client its share.

    A client with a partition I/N has the I-th of N shares, by the option `partitioner`. One without is a group of the
    natural column: the one that the option `group` names, or else one drawn from the client's name.

    Options, the same for every client:
        data: Where the data are.
        partitioner: `iid`, `dirichlet`, `shards`, `quantity` or `natural`, see `fedstep.client.partitions`.
        alpha: Of `dirichlet` and `quantity`, 0.5 unless given.
        shards: Of `shards`, 2 a client unless given.
        partition_seed: Of whatever is drawn, 0 unless given.
        group: A group's name, where there is a natural column; of a client without a partition.
        validation: The part of a client's samples kept for validation, 0.15 unless given; with 0 it measures on all.

    Attributes:
        partitioner: The default one.
        group_noun: What a group of the natural column is, for messages.
        more_options: Names of options beside those above.
    """

    partitioner: ClassVar[str] = "dirichlet"
    group_noun: ClassVar[str] = "groups"
    more_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """Nothing is read before it is asked for."""
        self._kept: dict[tuple[tuple[str, str], ...], _Opened] | None = None  # while many clients are loaded

    @abstractmethod
    def open_pool(self, options: Mapping[str, str]) -> Pool:
        """What clients train on.

        Raises:
            InvalidInputError: It cannot be read; one sentence with the path and the fix.
        """

    def load_data(self, client: ClientInfo) -> ClientData:
        """The client's share.

        Raises:
            InvalidInputError: The data or an option cannot be used, or there are more clients than can have a share.
        """
        options = client.options
        check_known(options, self.name, [*_OPTIONS, "group", *self.more_options])
        part, how = validation_share(options), Partitioner.of(options, self.partitioner)
        opened = self._open(options)
        if client.partition is None:
            mine = self._own(opened.pool, client)
        elif "group" in options:
            raise InvalidInputError(
                f"group={options['group']} and --partition both say what the client's samples are: give one of them."
            )
        else:
            index, clients = client.partition
            if clients not in opened.shares:
                pool = opened.pool
                opened.shares[clients] = how.split(pool.labels, clients, pool.groups, self.group_noun)
            mine = opened.shares[clients][index]
        return client_data(*opened.pool.take(mine), _SEED, part)

    @contextmanager
    def loading_many(self) -> Iterator[None]:
        """Reads and splits once for all clients that are loaded in the block."""
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    def own_share(self, pool: Pool) -> Indices:
        """The share of a client that has no partition, where there is no natural column.

        Raises:
            InvalidInputError: There is none, unless this is overridden.
        """
        raise InvalidInputError(
            f"The task {self.name} splits its data among the clients: give each its share, such as --partition 1/100."
        )

    def _own(self, pool: Pool, client: ClientInfo) -> Indices:
        wanted = client.options.get("group")
        if pool.groups is None:
            if wanted is not None:
                raise InvalidInputError(
                    f"group={wanted} needs data that say whose each sample is, and those of {self.name} do not: leave "
                    "it out."
                )
            return self.own_share(pool)
        there = {pool.names[number]: int(number) for number in np.unique(pool.groups)}
        if wanted is None:
            number = list(there.values())[name_generator(client.name, _SEED).integers(len(there))]
        elif wanted in there:
            number = there[wanted]
        else:
            near = nearest(wanted, there) or next(iter(there))
            raise InvalidInputError(
                f"group={wanted} is none of the {len(there)} {self.group_noun}: give one, such as {near}."
            )
        return np.flatnonzero(pool.groups == number)

    def _open(self, options: Mapping[str, str]) -> _Opened:
        if self._kept is None:
            return _Opened(self.open_pool(options))
        key = tuple(sorted(options.items()))
        if key not in self._kept:
            self._kept[key] = _Opened(self.open_pool(options))
        return self._kept[key]


def data_path(options: Mapping[str, str], task: str, what: str) -> str:
    """The option `data`.

    Raises:
        InvalidInputError: It is not given.
    """
    if not options.get("data"):
        raise InvalidInputError(f"The task {task} needs its data: give {what} with --data PATH.")
    return options["data"]


def check_labels(labels: Indices, classes: int, where: str, fix: str) -> None:
    """Refuses labels that the model has no output for.

    Raises:
        InvalidInputError: There is such a label.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        outside = highest if highest >= classes else lowest
        raise InvalidInputError(f"{where} has the label {outside}, and {classes} classes are 0 to {classes - 1}: {fix}")
