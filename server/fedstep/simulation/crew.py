"""Who carries out the orders of a simulation: here, or by another crew elsewhere."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Protocol

from fedstep.client.work import Evaluated
from fedstep.common.errors import FedstepError
from fedstep.simulation import local
from fedstep.simulation.local import Order, Training
from fedstep.simulation.measuring import CohortEvaluation
from fedstep.simulation.population import Population, Roster
from fedstep.simulation.vectorised import Kind, Stackable, VectorisedTraining

STACKED_BYTES = 256 << 20
"""Of models that train together, at most: training takes five times as much. Large ones gain nothing by more."""


class Crew(Protocol):
    """Computes for the clients of a federation.

    What an implementation promises: results come in the order of the orders, and where clients do not train together
    they are the same bit for bit, whoever computes them. Work that fails is a result like any other; what is raised is
    a fault of the crew's own, and ends the simulation.
    """

    @property
    def roster(self) -> Roster:
        """The clients."""

    def train(self, orders: Sequence[Order]) -> list[Training]:
        """The trainings of clients that were asked at the same moment."""

    def measure(self, orders: Sequence[Order]) -> list[Evaluated | FedstepError]:
        """The measurements of clients that were asked at the same moment; why there is none, where it failed."""


class LocalCrew:
    """Computes in this process and thread.

    Args:
        population: The clients.
        vectorised: Whether clients train and measure together where they can.
    """

    def __init__(self, population: Population, vectorised: bool) -> None:
        self._population = population
        self._training = VectorisedTraining(population) if vectorised else None
        self._measuring = CohortEvaluation(population) if vectorised else None

    @property
    def roster(self) -> Roster:
        """See `Crew.roster`."""
        return self._population.roster

    def train(self, orders: Sequence[Order]) -> list[Training]:
        """See `Crew.train`."""
        found: dict[int, Training] = {}
        groups: dict[Kind, dict[int, Stackable]] = defaultdict(dict)
        for place, order in enumerate(orders):
            stackable = self._training.stackable(order) if self._training else None
            if stackable is None:
                found[place] = local.train(self._population, order)
            else:
                groups[stackable.kind][place] = stackable
        for kind, group in groups.items():
            places, most = list(group), max(1, STACKED_BYTES // kind.manifest.payload_bytes)
            for start in range(0, len(places), most):
                found |= self._train_group({place: group[place] for place in places[start : start + most]})
        return [found[place] for place in range(len(orders))]

    def _train_group(self, group: dict[int, Stackable]) -> dict[int, Training]:
        """A single client trains by itself: as fast, and bit for bit as on a network."""
        if self._training is None or len(group) == 1:
            return {place: local.train(self._population, stackable.order) for place, stackable in group.items()}
        return dict(zip(group, self._training.train(list(group.values())), strict=True))

    def measure(self, orders: Sequence[Order]) -> list[Evaluated | FedstepError]:
        """See `Crew.measure`."""
        found: dict[int, Evaluated | FedstepError] = {}
        groups: dict[Hashable, dict[int, Order]] = defaultdict(dict)
        for place, order in enumerate(orders):
            together = self._measuring is not None and self._measuring.can_measure(order)
            model = (order.job.model.sha256, tuple(sorted(order.job.hyperparameters.items())))
            groups[model if together else place][place] = order
        for group in groups.values():
            found |= self._measure_group(group)
        return [found[place] for place in range(len(orders))]

    def _measure_group(self, group: dict[int, Order]) -> dict[int, Evaluated | FedstepError]:
        measured = self._measuring.measure(list(group.values())) if self._measuring and len(group) > 1 else None
        if measured is None:
            return {place: local.evaluate(self._population, order) for place, order in group.items()}
        return dict(zip(group, measured, strict=True))
