"""Each optimizer against a float64 restatement of its paper, line by line."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from contract.server_optimizer_kit import ServerOptimizerContract
from fedstep.common.errors import InvalidInputError
from fedstep.server.aggregation.base import ServerOptimizer
from fedstep.server.aggregation.server_optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi

Vector = NDArray[np.float64]


class TestFedAvg(ServerOptimizerContract):
    def make(self) -> ServerOptimizer:
        return FedAvg()

    def paper(self, weights: Vector, updates: list[Vector], values: Mapping[str, float]) -> Vector:
        for delta in updates:
            weights = weights + values["server_lr"] * delta
        return weights

    def test_with_rate_1_the_model_is_the_mean_of_the_clients_models(self) -> None:
        stepped, state = FedAvg().step(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0]), {}, {"server_lr": 1.0})
        assert stepped.tolist() == [1.5, 1.0]
        assert state == {}


class TestFedAvgM(ServerOptimizerContract):
    def make(self) -> ServerOptimizer:
        return FedAvgM()

    def paper(self, weights: Vector, updates: list[Vector], values: Mapping[str, float]) -> Vector:
        velocity = np.zeros_like(weights)
        for delta in updates:
            velocity = values["server_momentum"] * velocity + delta
            weights = weights + values["server_lr"] * velocity
        return weights


class AdaptiveContract(ServerOptimizerContract):
    """Algorithm 2 of Reddi et al. 2021, with m₋₁ = 0 and v₋₁ = τ²."""

    def second_moment(self, v: Vector, delta: Vector, beta_2: float) -> Vector:
        raise NotImplementedError

    def paper(self, weights: Vector, updates: list[Vector], values: Mapping[str, float]) -> Vector:
        beta_1, tau = values["server_momentum"], values["server_tau"]
        m, v = np.zeros_like(weights), np.full_like(weights, tau**2)
        for delta in updates:
            m = beta_1 * m + (1 - beta_1) * delta
            v = self.second_moment(v, delta, values["server_beta_2"])
            weights = weights + values["server_lr"] * m / (np.sqrt(v) + tau)
        return weights

    @pytest.mark.parametrize("tau", [0.0, -1.0])
    def test_tau_that_would_divide_by_zero_is_refused(self, tau: float) -> None:
        with pytest.raises(InvalidInputError, match=r"server_tau.*greater than 0") as caught:
            self.make().step(torch.zeros(2), torch.zeros(2), {}, {"server_tau": tau})
        assert [violation.field for violation in caught.value.violations] == ["hyperparameters.server_tau"]

    def test_tau_larger_than_every_update_makes_it_plain_momentum(self) -> None:
        update = torch.tensor([1.0, -2.0])
        values = {"server_tau": 1e6, "server_momentum": 0.5, "server_beta_2": 1.0, "server_lr": 2e6}
        stepped, _ = self.make().step(torch.zeros(2), update, {}, values)
        torch.testing.assert_close(stepped, 0.5 * update, rtol=1e-5, atol=0.0)


class TestFedAdagrad(AdaptiveContract):
    def make(self) -> ServerOptimizer:
        return FedAdagrad()

    def second_moment(self, v: Vector, delta: Vector, beta_2: float) -> Vector:
        return v + delta**2


class TestFedYogi(AdaptiveContract):
    def make(self) -> ServerOptimizer:
        return FedYogi()

    def second_moment(self, v: Vector, delta: Vector, beta_2: float) -> Vector:
        return v - (1 - beta_2) * delta**2 * np.sign(v - delta**2)


class TestFedAdam(AdaptiveContract):
    def make(self) -> ServerOptimizer:
        return FedAdam()

    def second_moment(self, v: Vector, delta: Vector, beta_2: float) -> Vector:
        return beta_2 * v + (1 - beta_2) * delta**2


def test_a_hyperparameter_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"hyperparameters\.server_lr: is \"fast\": it must be a number"):
        FedAvg().step(torch.zeros(1), torch.zeros(1), {}, {"server_lr": "fast"})
