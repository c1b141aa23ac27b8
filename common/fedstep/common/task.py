"""The contract of a task: the one object that a user writes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.progress import Progress
from fedstep.common.samples import Data, Samples, as_samples

__all__ = ["Batch", "ClientData", "ClientInfo", "Data", "Progress", "Samples", "Task"]

Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs [batch, ...] and targets [batch, ...], on the model's device."""


@dataclass(frozen=True)
class ClientInfo:
    """Which client's data is asked for.

    Attributes:
        name: The client's name, unique in the fleet.
        partition: Its share as (index, count), counted from 0; None when the client was started without one.
        options: What was given with `--option KEY=VALUE`, such as a path to the data.
    """

    name: str
    partition: tuple[int, int] | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, init=False)
class ClientData:
    """One client's own samples, for training and for validation."""

    train: Samples
    validation: Samples

    def __init__(self, train: Data, validation: Data) -> None:
        """Takes data of any kind.

        Args:
            train: See `fedstep.common.samples.as_samples`.
            validation: The same.

        Raises:
            InvalidInputError: It is of no kind that can be trained on.
        """
        object.__setattr__(self, "train", as_samples(train))
        object.__setattr__(self, "validation", as_samples(validation))


class Task(ABC):
    """A model, its data and its loss. The same object serves clients and coordinator.

    Attributes:
        name: What a study file and `--task` call it.
        defaults: Hyper-parameters of the task's own, or other defaults for the standard ones, by name.
            A study may tune any of them.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Value]] = {}

    @abstractmethod
    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """A fresh model; its initial weights come from torch's seeded generator."""

    @abstractmethod
    def load_data(self, client: ClientInfo) -> ClientData:
        """The client's samples. Called once per client process.

        Raises:
            InvalidInputError: The data cannot be read; one sentence with the path and the fix.
        """

    @contextmanager
    def loading_many(self) -> Iterator[None]:
        """Around the loading of many clients' data in one process, as a simulation does.

        Nothing happens here unless it is overridden. A task that reads a large file for each client may read it once
        and keep it until the end of the block.
        """
        yield

    def load_held_out(self, options: Mapping[str, str]) -> Data | None:
        """Samples that no client trains on, of any kind, read by the coordinator; None when there are none.

        Args:
            options: As in `ClientInfo.options`, given to the coordinator.
        """
        return None

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The mean training loss of a batch, a scalar; cross-entropy unless overridden."""
        inputs, targets = batch
        return nn.functional.cross_entropy(model(inputs), targets)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        """Means over a batch, scalars by name; must hold "loss". Loss and accuracy unless overridden."""
        inputs, targets = batch
        outputs = model(inputs)
        return {
            "loss": nn.functional.cross_entropy(outputs, targets),
            "accuracy": (outputs.argmax(dim=-1) == targets).float().mean(),
        }

    def train(self, progress: Progress, model: nn.Module, data: ClientData, hyperparameters: Hyperparameters) -> None:
        """A local training by a loop of one's own; unless this is overridden, fedstep's loop trains.

        It trains the model in place and calls `progress.step(loss, samples)` after every local step; when that answers
        False it returns. `loss` and `optimizer` are then its own affair, as are the hyper-parameters, all of which it
        is handed.

        Args:
            progress: Whom to tell.
            model: As received, in training mode, on `progress.device`.
            data: The client's samples, as `load_data` answered.
            hyperparameters: All there are, by name.
        """
        raise NotImplementedError

    def optimizer(self, model: nn.Module, hyperparameters: Hyperparameters) -> torch.optim.Optimizer | None:
        """The local optimizer; None for the standard one (`optimizer`, `lr`, `momentum`, `weight_decay`)."""
        return None
