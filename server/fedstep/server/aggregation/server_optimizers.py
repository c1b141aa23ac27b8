"""What the coordinator makes of a combined update: FedAvg, FedAvgM, and the adaptive three of Reddi et al. 2021.

Every update is the negative of the papers' pseudo-gradient, so it is added, never subtracted. Nothing is changed in
place that was handed in: a fresh tensor is made once per result and worked on from there.
"""

from abc import abstractmethod

import torch

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.standard import STANDARD
from fedstep.common.validation import sentences, show
from fedstep.server.aggregation.base import OptimizerState, ServerOptimizer


class FedAvg(ServerOptimizer):
    """A plain step: w + server_lr · Δ (McMahan et al. 2017). It keeps no state."""

    def step(
        self, weights: torch.Tensor, update: torch.Tensor, state: OptimizerState, hyperparameters: Hyperparameters
    ) -> tuple[torch.Tensor, OptimizerState]:
        """w + server_lr · Δ."""
        return torch.add(weights, update, alpha=_number(hyperparameters, "server_lr")), {}


class FedAvgM(ServerOptimizer):
    """Momentum on the server: m = server_momentum · m + Δ, then w + server_lr · m.

    Hsu et al. 2019, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification.
    """

    def step(
        self, weights: torch.Tensor, update: torch.Tensor, state: OptimizerState, hyperparameters: Hyperparameters
    ) -> tuple[torch.Tensor, OptimizerState]:
        """w + server_lr · m, with m kept as `momentum`."""
        momentum = update.clone()
        if "momentum" in state:
            momentum.add_(state["momentum"], alpha=_number(hyperparameters, "server_momentum"))
        stepped = torch.add(weights, momentum, alpha=_number(hyperparameters, "server_lr"))
        return stepped, {"momentum": momentum}


class AdaptiveOptimizer(ServerOptimizer):
    """What fedadagrad, fedyogi and fedadam share: algorithm 2 of Reddi et al. 2021, Adaptive Federated Optimization.

    m = β₁ m + (1 − β₁) Δ; v = the optimizer's own; w + η m / (√v + τ). As in the paper m starts at 0 and v at τ²,
    and neither is corrected for its start. η is `server_lr`, β₁ `server_momentum`, β₂ `server_beta_2` and τ
    `server_tau`, which must be greater than 0.
    """

    def step(
        self, weights: torch.Tensor, update: torch.Tensor, state: OptimizerState, hyperparameters: Hyperparameters
    ) -> tuple[torch.Tensor, OptimizerState]:
        """w + η m / (√v + τ), with m kept as `first_moment` and v as `second_moment`."""
        tau = _number(hyperparameters, "server_tau")
        if not tau > 0:
            # An element whose update is 0 would become 0 / 0, and with it the whole model.
            raise _illegal("server_tau", tau, "it must be greater than 0, such as 1e-3.")
        beta_1 = _number(hyperparameters, "server_momentum")
        first = update * (1 - beta_1)
        if "first_moment" in state:
            first.add_(state["first_moment"], alpha=beta_1)
        last_second = state["second_moment"] if "second_moment" in state else torch.full_like(update, tau * tau)
        second = self.second_moment(last_second, update * update, hyperparameters)
        change = torch.div(first, second.sqrt().add_(tau)).mul_(_number(hyperparameters, "server_lr"))
        return change.add_(weights), {"first_moment": first, "second_moment": second}

    @abstractmethod
    def second_moment(self, last: torch.Tensor, square: torch.Tensor, hyperparameters: Hyperparameters) -> torch.Tensor:
        """The new v.

        Args:
            last: The v before, float32 [elements].
            square: Δ², float32 [elements].
            hyperparameters: As in `step`.

        Returns:
            A new tensor, float32 [elements].
        """


class FedAdagrad(AdaptiveOptimizer):
    """v = v + Δ²: steps shrink as updates add up."""

    def second_moment(self, last: torch.Tensor, square: torch.Tensor, hyperparameters: Hyperparameters) -> torch.Tensor:
        """v, as above."""
        return last + square


class FedYogi(AdaptiveOptimizer):
    """v = v − (1 − β₂) Δ² sign(v − Δ²): like Adam, but v changes by no more than the update's own square."""

    def second_moment(self, last: torch.Tensor, square: torch.Tensor, hyperparameters: Hyperparameters) -> torch.Tensor:
        """v, as above."""
        beta_2 = _number(hyperparameters, "server_beta_2")
        return torch.sub(last, torch.sign(last - square).mul_(square), alpha=1 - beta_2)


class FedAdam(AdaptiveOptimizer):
    """v = β₂ v + (1 − β₂) Δ²."""

    def second_moment(self, last: torch.Tensor, square: torch.Tensor, hyperparameters: Hyperparameters) -> torch.Tensor:
        """v, as above."""
        beta_2 = _number(hyperparameters, "server_beta_2")
        return torch.add(last * beta_2, square, alpha=1 - beta_2)


def _number(hyperparameters: Hyperparameters, name: str) -> float:
    """The value of a server hyper-parameter, or its standard default."""
    value = hyperparameters.get(name, STANDARD[name].default)
    if isinstance(value, str):
        raise _illegal(name, value, "it must be a number.")
    return float(value)


def _illegal(name: str, value: Value, fix: str) -> InvalidInputError:
    violation = FieldViolation(f"hyperparameters.{name}", f"is {show(value)}: {fix}")
    return InvalidInputError(sentences([violation]), [violation])
