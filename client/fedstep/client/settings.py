"""The hyper-parameters of local training, typed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn

from fedstep.client.sgd import PlainSGD
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.legal import standard_fault
from fedstep.common.standard import STANDARD

T = TypeVar("T", int, float, str)


class LocalOptimizer(Protocol):
    """What the trainer needs of an optimizer; any of torch.optim has it."""

    def step(self) -> object:
        """Moves the parameters by their gradients."""


@dataclass(frozen=True)
class LocalSettings:
    """What `fedstep.common.standard` says of scope client, as the trainer uses it."""

    lr: float
    momentum: float
    weight_decay: float
    batch_size: int
    local_epochs: int
    optimizer: str
    proximal_mu: float
    gradient_clip: float

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> "LocalSettings":
        """The settings among all hyper-parameters.

        Raises:
            InvalidInputError: One is missing or not legal.
        """
        return cls(
            lr=_take(values, "lr", float),
            momentum=_take(values, "momentum", float),
            weight_decay=_take(values, "weight_decay", float),
            batch_size=_take(values, "batch_size", int),
            local_epochs=_take(values, "local_epochs", int),
            optimizer=_take(values, "optimizer", str),
            proximal_mu=_take(values, "proximal_mu", float),
            gradient_clip=_take(values, "gradient_clip", float),
        )

    def optimizer_for(self, model: nn.Module) -> LocalOptimizer:
        """The standard local optimizer."""
        parameters = model.parameters()
        match self.optimizer:
            case "adam":
                return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)
            case "adamw":
                return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
            case _:
                return PlainSGD(parameters, self.lr, self.momentum, self.weight_decay)


def _take(values: Mapping[str, Value], name: str, kind: type[T]) -> T:
    value = values.get(name, STANDARD[name].default)
    fault = standard_fault(name, value)
    if fault:
        raise InvalidInputError(f"The hyper-parameter {name} {fault}")
    return kind(value)
