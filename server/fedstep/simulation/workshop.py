"""Gathers the work that clients are given at one instant, so that it is done together."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from fedstep.client.work import Evaluated
from fedstep.common.errors import FedstepError
from fedstep.simulation.crew import Crew
from fedstep.simulation.local import Order, Training

R = TypeVar("R")


class Workshop:
    """Where all clients of a simulation have their work done. It takes no virtual time: that is the clients' affair.

    Args:
        crew: Who does it.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._to_train = _Gathered(crew.train)
        self._to_measure = _Gathered(crew.measure)

    def train(self, order: Order) -> asyncio.Future[Training]:
        """The training, in the next turn of the loop."""
        return self._to_train.give(order)

    def measure(self, order: Order) -> asyncio.Future[Evaluated | FedstepError]:
        """The measurement, in the next turn of the loop; why there is none, where it failed."""
        return self._to_measure.give(order)

    def train_alone(self, order: Order) -> Training:
        """The training, now and by itself."""
        (training,) = self._crew.train([order])
        return training


class _Gathered(Generic[R]):
    """The orders of one turn of the loop.

    Args:
        carry_out: Does them all; its results are in their order.
    """

    def __init__(self, carry_out: Callable[[Sequence[Order]], Sequence[R]]) -> None:
        self._carry_out = carry_out
        self._waiting: list[tuple[Order, asyncio.Future[R]]] = []

    def give(self, order: Order) -> asyncio.Future[R]:
        """Adds an order. The cohort was told at once, so whoever is asked now runs before what is called soon."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((order, future))
        return future

    def _flush(self) -> None:
        waiting = [(order, future) for order, future in self._waiting if not future.cancelled()]
        self._waiting = []
        try:
            results = self._carry_out([order for order, _ in waiting])
        except Exception as error:  # a fault of the simulation's own: it must not hang
            for _, future in waiting:
                future.set_exception(error)
            return
        for (_, future), result in zip(waiting, results, strict=True):
            future.set_result(result)
