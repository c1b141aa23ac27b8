"""The contracts of aggregation: many updates into one, and one update into the next model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.aggregation.local_work import WHOLE, LocalWork

OptimizerState = Mapping[str, torch.Tensor]
"""A server optimizer's moments by name, each float32 [elements]; empty before the first round."""


class Aggregator(ABC):
    """Combines a round's updates into one.

    What an implementation promises: `add` does not keep the update it is given; memory does not depend on the number of
    updates (a robust aggregator that must hold them says so); the same updates in the same order give the same result,
    bit for bit; an update of a part of what was due counts by that part; where everybody did the same share of what is
    due, the shares change nothing; after `finish` it is ready for the next round.
    """

    @abstractmethod
    def add(self, update: torch.Tensor, weight: float, work: LocalWork = WHOLE) -> None:
        """Takes in one update.

        Args:
            update: float32 [elements]; left as it is.
            weight: Greater than 0: the client's number of samples, less what lateness takes of it.
            work: The local training it holds.

        Raises:
            ValueError: The update is not float32 [elements], the weight not a finite number greater than 0, or the
                work more than was due.
        """

    @property
    @abstractmethod
    def count(self) -> int:
        """Updates since the last `finish`."""

    @abstractmethod
    def finish(self) -> torch.Tensor:
        """The combined update, float32 [elements], the caller's to keep.

        Raises:
            ValueError: There was no update.
        """


class ServerOptimizer(ABC):
    """Makes the next model of the last one and the combined update.

    After Reddi et al. 2021, Adaptive Federated Optimization.

    What an implementation promises: nothing it is given is changed, what it returns is new, and the same input gives
    the same output, bit for bit, so that a run can be forked and rewound.
    """

    @abstractmethod
    def step(
        self, weights: torch.Tensor, update: torch.Tensor, state: OptimizerState, hyperparameters: Hyperparameters
    ) -> tuple[torch.Tensor, OptimizerState]:
        """One server step.

        Args:
            weights: float32 [elements].
            update: The combined update, float32 [elements]: the negative of the paper's pseudo-gradient.
            state: What the last step returned; empty at first.
            hyperparameters: Those of scope server: `server_lr`, `server_momentum`, `server_beta_2`, `server_tau`.

        Returns:
            The new weights and the new state.
        """
