"""The clients of a federation: their data, loaded once for as many simulations as are wanted."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.utils.data import TensorDataset

from fedstep.client.trainer import Trainer
from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import held_out_samples, sample_count
from fedstep.common.task import ClientData, ClientInfo, Samples, Task
from fedstep.common.tasks import load_client_data
from fedstep.common.tensors import Manifest

CPU = torch.device("cpu")

_TRAINERS = 32
"""Clients whose models are kept between two jobs: 80 MB each with LEAF's network, two models and gradients."""


@dataclass(frozen=True)
class Pool:
    """The samples of all clients in one tensor, so that those of several are read in one go.

    Attributes:
        inputs: [samples, ...].
        targets: [samples, ...].
        starts: Each client's first sample.
        sizes: How many samples each client has.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, shares: Sequence[Samples]) -> "Pool | None":
        """The shares in one; None where they are not pairs of tensors of one kind."""
        sets = [share for share in shares if isinstance(share, TensorDataset) and len(share.tensors) == 2]
        kinds = {tuple((tensor.dtype, tensor.shape[1:]) for tensor in share.tensors) for share in sets}
        if len(sets) < len(shares) or len(kinds) != 1:
            return None
        sizes = tuple(len(share) for share in sets)
        starts = tuple(sum(sizes[:index]) for index in range(len(sizes)))
        inputs, targets = (torch.cat([share.tensors[column] for share in sets]).contiguous() for column in (0, 1))
        return cls(inputs, targets, starts, sizes)

    @cached_property
    def labelled(self) -> bool:
        """Whether the targets are class numbers, one a sample, so that each counts the same in a cross-entropy."""
        return self.targets.dtype is torch.int64 and self.targets.dim() == 1 and not bool((self.targets < 0).any())

    def share(self, client: int) -> TensorDataset:
        """One client's samples: views."""
        part = slice(self.starts[client], self.starts[client] + self.sizes[client])
        return TensorDataset(self.inputs[part], self.targets[part])


@dataclass(frozen=True)
class Roster:
    """The clients of a federation, as far as a coordinator is told.

    Attributes:
        names: The clients' names, in the order of their numbers and of the alphabet.
        options: The task's, as they were started with.
        manifest: The layout of the task's model at its default hyper-parameters.
        train_samples: Size of each client's training set.
        validation_samples: Size of each client's validation set.
    """

    names: tuple[str, ...]
    options: Mapping[str, str]
    manifest: Manifest
    train_samples: tuple[int, ...]
    validation_samples: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)


def names_of(clients: int) -> tuple[str, ...]:
    """The names of so many clients.

    Raises:
        InvalidInputError: There is no client.
    """
    if clients < 1:
        raise InvalidInputError(f"A federation of {clients} clients cannot train: give it at least 1.")
    width = len(str(clients - 1))
    return tuple(f"client-{number:0{width}}" for number in range(clients))


class Population:
    """The clients of a federation and what trains for them. It keeps nothing of a simulation.

    Attributes:
        task: What they train.
        options: The task's, as clients are started with.
        names: The clients' names, in the order of their numbers and of the alphabet.
        training: All training samples; None where they cannot be pooled.
        validation: All validation samples; None where they cannot be pooled.
    """

    def __init__(
        self,
        task: Task,
        clients: int,
        options: Mapping[str, str] | None = None,
        part: range | None = None,
        tell: Callable[[int], None] = lambda loaded: None,
    ) -> None:
        """Loads the clients' shares: client i of n is given the partition (i, n).

        Args:
            task: What they train.
            clients: In the federation.
            options: The task's.
            part: The numbers of those to load, where the others are elsewhere; here they count from 0. None for all.
            tell: Is told after each share how many there are.

        Raises:
            InvalidInputError: There is no client, or the task cannot load a share.
        """
        self.task = task
        self.options = dict(options or {})
        names, numbers = names_of(clients), range(clients) if part is None else part
        self.names = tuple(names[number] for number in numbers)
        infos = [ClientInfo(names[number], (number, clients), self.options) for number in numbers]
        with task.loading_many():
            shares = [_loaded(task, info, number, tell) for number, info in enumerate(infos, start=1)]
        self.training = Pool.of([share.train for share in shares])
        self.validation = Pool.of([share.validation for share in shares])
        self._shares = [self._pooled(number, share) for number, share in enumerate(shares)]
        self._trainers: OrderedDict[int, Trainer] = OrderedDict()

    def __len__(self) -> int:
        return len(self.names)

    def trainer(self, client: int) -> Trainer:
        """What trains for a client, made when it is asked for. It measures no time: that is the simulation's.

        Each holds models, and nothing that a job would miss: only those asked for last are kept.
        """
        trainer = self._trainers.pop(client, None) or Trainer(self.task, self._shares[client], CPU, timer_s=lambda: 0.0)
        self._trainers[client] = trainer
        while len(self._trainers) > _TRAINERS:
            self._trainers.popitem(last=False)
        return trainer

    @cached_property
    def roster(self) -> Roster:
        """What a coordinator is told of these clients."""
        sizes = [(sample_count(share.train), sample_count(share.validation)) for share in self._shares]
        train_samples, validation_samples = zip(*sizes, strict=True)
        return Roster(self.names, self.options, self.trainer(0).manifest(), train_samples, validation_samples)

    @cached_property
    def held_out(self) -> Samples | None:
        """The samples that no client trains on; None where the task has none."""
        return held_out_samples(self.task, self.options)

    def _pooled(self, client: int, share: ClientData) -> ClientData:
        """The share as views into the pools: the samples are in memory once."""
        train = share.train if self.training is None else self.training.share(client)
        validation = share.validation if self.validation is None else self.validation.share(client)
        return ClientData(train, validation)


def _loaded(task: Task, info: ClientInfo, number: int, tell: Callable[[int], None]) -> ClientData:
    share = load_client_data(task, info)
    tell(number)
    return share
