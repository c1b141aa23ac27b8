"""One client's work in a simulation: what it is asked, what comes of it, and how it is done one after the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedstep.client.work import AbandonedError, Control, DivergedError, Evaluated, Job, Trained
from fedstep.common.errors import ExhaustedError, FedstepError, InternalError, InvalidInputError
from fedstep.common.raised import RAISED, raised
from fedstep.simulation.population import Population


@dataclass(frozen=True)
class Order:
    """A job, and the number of the client that is to do it."""

    client: int
    job: Job


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Attributes:
        trained: The update; None where there is none.
        losses: Of every local step that was taken.
        samples: In the batch of each step.
        error: Why there is no update.
    """

    trained: Trained | None
    losses: Sequence[float]
    samples: Sequence[int]
    error: FedstepError | None = None


@dataclass
class _Steps:
    """Takes in the local steps as they end."""

    losses: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        self.losses.append(loss)
        self.samples.append(samples)


def train(population: Population, order: Order) -> Training:
    """A training by the client's own trainer, as a networked client does it: bit for bit."""
    steps = _Steps()
    try:
        trained = population.trainer(order.client).train(order.job, _unhindered(), steps)
    except RAISED as error:  # a task's own code may raise anything; the client tells the coordinator
        return Training(None, steps.losses, steps.samples, _plain(error))
    return Training(trained, steps.losses, steps.samples)


def evaluate(population: Population, order: Order) -> Evaluated | FedstepError:
    """A measurement by the client's own trainer; why there is none, where it failed."""
    try:
        return population.trainer(order.client).evaluate(order.job, _unhindered())
    except RAISED as error:  # as above
        return _plain(error)


def _plain(error: BaseException) -> FedstepError:
    """Why some work failed, as fedstep's own error: a task's may hold anything, and then cannot leave its process."""
    for kind in (AbandonedError, DivergedError, InvalidInputError, ExhaustedError):
        if isinstance(error, kind):
            return kind(error.message, error.violations)
    if isinstance(error, FedstepError):
        return InternalError(error.message, error.violations)
    return InternalError(raised(error))


def _unhindered() -> Control:
    """Nothing stops the work in the middle: virtual time stands still meanwhile."""
    return Control(math.inf, clock=lambda: 0.0)
