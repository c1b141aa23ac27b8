"""What an actor of a Ray cluster holds: some clients of a federation with their data, and what computes for them.

Nothing here needs Ray. Tensors travel as numpy arrays, which Ray maps into memory where it would pickle a tensor.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch

from fedstep.client.work import Evaluated, Model
from fedstep.common.errors import FedstepError
from fedstep.common.tasks import load_task
from fedstep.common.tensors import Manifest
from fedstep.simulation.crew import LocalCrew
from fedstep.simulation.local import Order, Training
from fedstep.simulation.population import Population, Roster

_NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Part:
    """Which clients an actor has, and all that it needs to load them.

    Attributes:
        task: As `load_task` takes it; a path is absolute.
        folder: Where the simulation was started: paths among the options may be relative to it.
        options: The task's.
        vectorised: Whether clients train and measure together where they can.
        clients: In the federation.
        number: The actor has client i where i modulo `actors` is this.
        actors: How many there are.
    """

    task: str
    folder: str
    options: Mapping[str, str]
    vectorised: bool
    clients: int
    number: int
    actors: int


@dataclass(frozen=True)
class PackedModel:
    """A model on its way to the actors.

    Attributes:
        manifest: Its layout.
        sha256: Its digest.
        values: uint8 [payload_bytes].
    """

    manifest: Manifest
    sha256: bytes
    values: np.ndarray[tuple[int], np.dtype[np.uint8]]

    @classmethod
    def of(cls, model: Model) -> Self:
        """Packs a model; its payload is not copied."""
        return cls(model.manifest, model.sha256, model.payload.numpy())

    def unpacked(self) -> Model:
        """The model. Copied: what Ray maps cannot be written to, and torch has no tensors of that kind."""
        return Model(self.manifest, torch.from_numpy(self.values.copy()), self.sha256)


@dataclass(frozen=True)
class PackedTraining:
    """What came of a training, on its way back.

    Attributes:
        training: All but the update's values.
        update: These, float32 [elements]; None where there is no update.
    """

    training: Training
    update: np.ndarray[tuple[int], np.dtype[np.float32]] | None

    @classmethod
    def of(cls, training: Training) -> Self:
        """Packs a training."""
        if training.trained is None:
            return cls(training, None)
        return cls(_with_update(training, _NOTHING), training.trained.update.numpy())

    def unpacked(self) -> Training:
        """The training, with an update of its own: whoever aggregates may write to it."""
        return (
            self.training if self.update is None else _with_update(self.training, torch.from_numpy(self.update.copy()))
        )


def packed_order(order: Order) -> Order:
    """An order without its model's values, which travel by themselves and once."""
    return _with_model(order, replace(order.job.model, payload=_NOTHING))


class Shard:
    """Some clients of a federation, in a process of their own.

    Their data is loaded when it is first asked for, in the process that computes with it: an actor that was started
    again loads it again.

    Args:
        part: Which.
    """

    def __init__(self, part: Part) -> None:
        torch.set_num_threads(1)
        # A node without that folder can still do with absolute paths; where it cannot, the task says what is missing.
        with suppress(OSError):
            os.chdir(part.folder)
        self._part = part

    def node(self) -> str:
        """The name of the machine that this is."""
        return socket.gethostname()

    def roster(self) -> Roster:
        """Its clients, in the order of their numbers.

        Raises:
            InvalidInputError: The task or its data cannot be loaded here.
        """
        return self._crew.roster

    def train(self, orders: Sequence[Order], *models: PackedModel) -> list[PackedTraining]:
        """The trainings that packed orders ask for.

        Args:
            orders: With the clients' numbers in the federation.
            models: Those that the orders name.
        """
        return [PackedTraining.of(training) for training in self._crew.train(self._unpacked(orders, models))]

    def measure(self, orders: Sequence[Order], *models: PackedModel) -> list[Evaluated | FedstepError]:
        """The measurements that packed orders ask for; see `train`."""
        return self._crew.measure(self._unpacked(orders, models))

    @cached_property
    def _crew(self) -> LocalCrew:
        part = self._part
        numbers = range(part.number, part.clients, part.actors)
        population = Population(load_task(part.task), part.clients, part.options, numbers)
        return LocalCrew(population, part.vectorised)

    def _unpacked(self, orders: Sequence[Order], models: Sequence[PackedModel]) -> list[Order]:
        known = {model.sha256: model.unpacked() for model in models}
        orders = [replace(order, client=order.client // self._part.actors) for order in orders]
        return [_with_model(order, known[order.job.model.sha256]) for order in orders]


def _with_model(order: Order, model: Model) -> Order:
    return replace(order, job=replace(order.job, model=model))


def _with_update(training: Training, update: torch.Tensor) -> Training:
    assert training.trained is not None
    return replace(training, trained=replace(training.trained, update=update))
