"""What one client is asked to train: how many local steps, and what they count for."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.standard import STANDARD
from fedstep.server.aggregation.local_work import LocalWork, effective_steps

Samples = TypeVar("Samples", int, NDArray[np.int64])


@dataclass(frozen=True)
class LocalPlan:
    """The local steps of one assignment.

    Attributes:
        steps: It is told to take so many: those that are due, or its step budget where that is less.
        due: Steps of the whole local training, which a partial one is measured against.
        momentum: Of its local SGD; 0 with another optimizer.
        pull: lr · proximal_mu: what a step of local SGD takes back of the way from the received model.
    """

    steps: int
    due: int
    momentum: float = 0.0
    pull: float = 0.0

    @classmethod
    def of(cls, samples: int, values: Hyperparameters, max_steps: int = 0, budget: int = 0) -> "LocalPlan":
        """The plan of a client.

        Args:
            samples: Of its training set.
            values: The hyper-parameters it is sent.
            max_steps: The round's own bound on local steps; 0 for none.
            budget: This client's; 0 for none.
        """
        whole = whole_steps(samples, values)
        due = max(1, min(whole, max_steps) if max_steps else whole)
        steps = min(due, budget) if budget else due
        sgd = _of(values, "optimizer") == "sgd"
        momentum = float(_of(values, "momentum")) if sgd else 0.0
        pull = float(_of(values, "lr")) * float(_of(values, "proximal_mu")) if sgd else 0.0
        return cls(steps, due, momentum, pull)

    def part(self, steps: int) -> float:
        """Which part of what is due so many steps are, in (0, 1]; see `work` for what they count as."""
        return steps / self.due if 0 < steps < self.due else 1.0

    def work(self, steps: int) -> LocalWork:
        """What an update of so many steps holds.

        Args:
            steps: As the client says; 0, where it does not say, and more than are due count as all of them.
        """
        due = effective_steps(self.due, self.momentum, self.pull)
        if not 0 < steps < self.due:
            return LocalWork(due, due)
        return LocalWork(min(due, effective_steps(steps, self.momentum, self.pull)), due)


def whole_steps(samples: Samples, values: Hyperparameters) -> Samples:
    """Local steps of all epochs, the last batch of each short or not.

    Args:
        samples: Of a client's training set, or of many clients'.
        values: The hyper-parameters that it is sent.
    """
    return -(-samples // int(_of(values, "batch_size"))) * int(_of(values, "local_epochs"))


def _of(values: Hyperparameters, name: str) -> Value:
    return values.get(name, STANDARD[name].default)
