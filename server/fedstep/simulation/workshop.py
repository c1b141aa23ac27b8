"""Gathers the work that clients are given at one instant, and does it together."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from fedstep.client.work import Evaluated
from fedstep.simulation import local
from fedstep.simulation.local import Order, Training
from fedstep.simulation.measuring import CohortEvaluation
from fedstep.simulation.population import Population
from fedstep.simulation.vectorised import Kind, Stackable, VectorisedTraining

R = TypeVar("R")


class Workshop:
    """What computes for all clients of a simulation. It takes no virtual time: that is the clients' affair.

    Args:
        population: The clients.
        vectorised: Whether clients train and measure together where they can.
    """

    def __init__(self, population: Population, vectorised: bool) -> None:
        self._population = population
        self._training = VectorisedTraining(population) if vectorised else None
        self._measuring = CohortEvaluation(population) if vectorised else None
        self._to_train = _Gathered(self._train)
        self._to_measure = _Gathered(self._measure)

    def train(self, order: Order) -> asyncio.Future[Training]:
        """The training, in the next turn of the loop."""
        return self._to_train.give(order)

    def measure(self, order: Order) -> asyncio.Future[Evaluated | Exception]:
        """The measurement, in the next turn of the loop; what it raised, where it failed."""
        return self._to_measure.give(order)

    def train_alone(self, order: Order) -> Training:
        """The training, now and by itself."""
        return local.train(self._population, order)

    def _train(self, orders: Sequence[Order]) -> list[Training]:
        found: dict[int, Training] = {}
        groups: dict[Kind, dict[int, Stackable]] = defaultdict(dict)
        for place, order in enumerate(orders):
            stackable = self._training.stackable(order) if self._training else None
            if stackable is None:
                found[place] = self.train_alone(order)
            else:
                groups[stackable.kind][place] = stackable
        for group in groups.values():
            found |= self._train_group(group)
        return [found[place] for place in range(len(orders))]

    def _train_group(self, group: dict[int, Stackable]) -> dict[int, Training]:
        """A single client trains by itself: as fast, and bit for bit as on a network."""
        if self._training is None or len(group) == 1:
            return {place: self.train_alone(stackable.order) for place, stackable in group.items()}
        return dict(zip(group, self._training.train(list(group.values())), strict=True))

    def _measure(self, orders: Sequence[Order]) -> list[Evaluated | Exception]:
        found: dict[int, Evaluated | Exception] = {}
        groups: dict[Hashable, dict[int, Order]] = defaultdict(dict)
        for place, order in enumerate(orders):
            together = self._measuring is not None and self._measuring.can_measure(order)
            model = (order.job.model.sha256, tuple(sorted(order.job.hyperparameters.items())))
            groups[model if together else place][place] = order
        for group in groups.values():
            found |= self._measure_group(group)
        return [found[place] for place in range(len(orders))]

    def _measure_group(self, group: dict[int, Order]) -> dict[int, Evaluated | Exception]:
        measured = self._measuring.measure(list(group.values())) if self._measuring and len(group) > 1 else None
        if measured is None:
            return {place: local.evaluate(self._population, order) for place, order in group.items()}
        return dict(zip(group, measured, strict=True))


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
