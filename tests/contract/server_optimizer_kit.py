"""What every server optimizer must pass: subclass `ServerOptimizerContract` and restate its paper in float64."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.aggregation.base import OptimizerState, ServerOptimizer

# Every subclass runs the same inherited test: that is the point of a kit.
inherited = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.differing_executors])

ELEMENTS = 37

hyperparameters = st.fixed_dictionaries(
    {
        "server_lr": st.floats(1e-3, 3.0),
        "server_momentum": st.floats(0.0, 0.99),
        "server_beta_2": st.floats(0.0, 0.999),
        "server_tau": st.floats(1e-4, 1e-1),
    }
)


def vectors(seed: int, count: int) -> list[torch.Tensor]:
    """Made-up updates, float32 [ELEMENTS] each, of sizes that differ by element; one element never moves."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-4, 0, ELEMENTS)
    scale[0] = 0.0
    return [torch.randn(ELEMENTS, generator=generator) * scale for _ in range(count)]


class ServerOptimizerContract(ABC):
    """The promises of `ServerOptimizer`."""

    @abstractmethod
    def make(self) -> ServerOptimizer:
        """A fresh optimizer."""

    @abstractmethod
    def paper(
        self, weights: NDArray[np.float64], updates: list[NDArray[np.float64]], values: Mapping[str, float]
    ) -> NDArray[np.float64]:
        """The weights after these updates in order, as the paper says, in float64."""

    def run(
        self, weights: torch.Tensor, updates: list[torch.Tensor], values: Hyperparameters, state: OptimizerState
    ) -> tuple[torch.Tensor, OptimizerState]:
        """Several steps with an optimizer that is made anew for each: what it knows must be in the state."""
        for update in updates:
            weights, state = self.make().step(weights, update, state, values)
        return weights, state

    @inherited
    @given(seed=st.integers(0, 1000), steps=st.integers(1, 6), values=hyperparameters)
    def test_steps_as_the_paper_says(self, seed: int, steps: int, values: dict[str, float]) -> None:
        weights, *updates = vectors(seed, 1 + steps)
        stepped, _ = self.run(weights, updates, values, {})
        exact = self.paper(weights.double().numpy(), [u.double().numpy() for u in updates], values)
        moved = np.abs(exact - weights.double().numpy()).max()
        np.testing.assert_allclose(stepped.double().numpy(), exact, rtol=1e-5, atol=1e-5 * moved)
        assert stepped[0] == 0.0  # where nothing came, nothing moves

    @inherited
    @given(seed=st.integers(0, 1000), values=hyperparameters)
    def test_changes_nothing_it_is_given_and_returns_what_is_new(self, seed: int, values: dict[str, float]) -> None:
        weights, first, second = vectors(seed, 3)
        optimizer = self.make()
        weights, state = optimizer.step(weights, first, {}, values)
        given = {"weights": weights, "update": second, **state}
        before = {name: tensor.clone() for name, tensor in given.items()}
        stepped, next_state = optimizer.step(weights, second, state, values)
        for name, tensor in given.items():
            assert torch.equal(tensor, before[name]), name
        owned = {tensor.data_ptr() for tensor in given.values()}
        assert stepped.data_ptr() not in owned
        assert all(tensor.data_ptr() not in owned for tensor in next_state.values())

    @inherited
    @given(seed=st.integers(0, 1000), values=hyperparameters)
    def test_a_fork_goes_on_as_the_original_bit_for_bit(self, seed: int, values: dict[str, float]) -> None:
        weights, *updates = vectors(seed, 5)
        middle, state = self.run(weights, updates[:2], values, {})
        fork = {name: tensor.clone() for name, tensor in state.items()}
        straight, straight_state = self.run(middle, updates[2:], values, state)
        forked, forked_state = self.run(middle.clone(), updates[2:], values, fork)
        assert torch.equal(straight, forked)
        assert straight_state.keys() == forked_state.keys()
        assert all(torch.equal(straight_state[name], forked_state[name]) for name in straight_state)

    def test_results_are_flat_float32(self) -> None:
        weights, update = vectors(0, 2)
        stepped, state = self.make().step(weights, update, {}, {})
        assert all(t.dtype is torch.float32 and t.shape == (ELEMENTS,) for t in (stepped, *state.values()))

    def test_no_update_at_all_leaves_the_model_where_it_is(self) -> None:
        (weights,) = vectors(3, 1)
        stepped, _ = self.make().step(weights, torch.zeros(ELEMENTS), {}, {"server_tau": 1e-3})
        assert torch.equal(stepped, weights)

    def test_a_missing_hyperparameter_has_its_standard_value(self) -> None:
        weights, *updates = vectors(5, 4)
        standard = {"server_lr": 1.0, "server_momentum": 0.9, "server_beta_2": 0.99, "server_tau": 1e-3}
        assert torch.equal(self.run(weights, updates, {}, {})[0], self.run(weights, updates, standard, {})[0])

    def test_whole_numbers_are_numbers(self) -> None:
        weights, update = vectors(6, 2)
        whole, _ = self.make().step(weights, update, {}, {"server_lr": 1, "server_momentum": 0})
        real, _ = self.make().step(weights, update, {}, {"server_lr": 1.0, "server_momentum": 0.0})
        assert torch.equal(whole, real)
