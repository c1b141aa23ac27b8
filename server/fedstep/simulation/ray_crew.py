"""Clients on a Ray cluster: each actor has some of them, and is sent what these are asked."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fedstep.client.work import Evaluated, Model
from fedstep.common.errors import FedstepError, InvalidInputError, UnavailableError
from fedstep.simulation.local import Order, Training
from fedstep.simulation.population import Roster, names_of
from fedstep.simulation.ray_cluster import AUTO, connected, cpus
from fedstep.simulation.ray_shard import PackedModel, PackedTraining, Part, Shard, packed_order
from fedstep.simulation.run import Federation

R = TypeVar("R")

PLACING_S = 120.0
"""How long actors may wait for a free CPU and for their process, before a simulation begins."""

_RESTARTS = 10
_ATTEMPTS = 3
"""How often an actor that dies is started again, and how often the same orders may see one die."""

_Ask = Callable[[ActorHandle[Any], list[Order], list[ray.ObjectRef[PackedModel]]], ray.ObjectRef[list[R]]]
"""Asks an actor for the results of packed orders, and hands it the models that they name."""

_PATIENCE_S = 30.0
_MODELS_HELD = 8


@contextmanager
def ray_crew(
    task: str, federation: Federation, address: str = AUTO, actors: int | None = None, placing_s: float = PLACING_S
) -> Iterator["RayCrew"]:
    """Starts actors on an existing cluster, and ends them however the caller leaves.

    Args:
        task: As `load_task` takes it: every node loads it by itself, and the data too.
        federation: Who takes part. Client i is on actor i modulo their number.
        address: See `connected`.
        actors: How many, a CPU each; None for as many as the cluster has CPUs. More than there are clients are not
            started.
        placing_s: How long they may wait for free CPUs.

    Raises:
        InvalidInputError: The cluster has fewer CPUs, or a node cannot load the task or its data.
        UnavailableError: There is no such cluster, its CPUs are taken, or an actor died.
    """
    names = names_of(federation.clients)
    with connected(address):
        count = min(_count(actors), len(names))
        remote: Any = ray.remote(num_cpus=1, max_restarts=_RESTARTS, max_task_retries=_ATTEMPTS - 1)(Shard)
        reference = str(Path(task).resolve()) if task.endswith(".py") else task
        parts = [
            Part(reference, os.getcwd(), federation.options, federation.vectorised, federation.clients, number, count)
            for number in range(count)
        ]
        handles: list[ActorHandle[Any]] = [remote.remote(part) for part in parts]
        try:
            team = _placed(handles, placing_s)
            yield RayCrew(team, _roster(team, names))
        finally:
            for handle in handles:
                ray.kill(handle)


def _count(wanted: int | None) -> int:
    """How many actors to start."""
    there = cpus()
    if not there:
        raise UnavailableError("The Ray cluster has no CPU to train on: add a node to it with `ray start --address`.")
    if wanted is not None and wanted > there:
        raise InvalidInputError(
            f"--ray-actors {wanted} is more than the {there} CPUs of the Ray cluster, and an actor takes one: give at "
            f"most {there}, or add nodes first."
        )
    return wanted or there


def _placed(handles: Sequence[ActorHandle[Any]], placing_s: float) -> list["_Actor"]:
    """The actors with their nodes' names, once all of them run."""
    asked: list[ray.ObjectRef[str]] = [handle.node.remote() for handle in handles]
    ready, waiting = ray.wait(asked, num_returns=len(asked), timeout=placing_s)
    if waiting:
        raise UnavailableError(
            f"Only {len(ready)} of {len(handles)} Ray actors found a free CPU within {placing_s:g} s: wait until other "
            "work on the cluster has ended, or give fewer --ray-actors."
        )
    try:
        nodes = ray.get(asked)
    except RayError as error:
        why = str(error).strip().splitlines()[-1].rstrip(".")
        raise UnavailableError(
            f"A Ray actor could not begin ({why}): install the same version of fedstep[ray] on every node."
        ) from None
    pairs = enumerate(zip(handles, nodes, strict=True))
    return [_Actor(handle, number, len(handles), node) for number, (handle, node) in pairs]


def _roster(team: Sequence["_Actor"], names: tuple[str, ...]) -> Roster:
    """All clients, of whom each actor knows some; their data is loaded meanwhile, on all nodes at once."""
    asked: list[ray.ObjectRef[Roster]] = [actor.handle.roster.remote() for actor in team]
    parts = [actor.result(roster) for actor, roster in zip(team, asked, strict=True)]
    train_samples, validation_samples = [0] * len(names), [0] * len(names)
    for number, part in enumerate(parts):
        theirs = slice(number, None, len(team))
        train_samples[theirs] = part.train_samples
        validation_samples[theirs] = part.validation_samples
    return Roster(names, parts[0].options, parts[0].manifest, tuple(train_samples), tuple(validation_samples))


@dataclass(frozen=True)
class _Actor:
    """An actor that runs.

    Attributes:
        handle: Reaches it.
        number: Among the team; it has every client i where i modulo `team` is this.
        team: How many there are.
        node: The machine that it began on.
    """

    handle: ActorHandle[Any]
    number: int
    team: int
    node: str

    def result(self, asked: ray.ObjectRef[R]) -> R:
        """What it was asked for. Ray starts it again where it dies, and asks again: the same, bit for bit.

        Raises:
            FedstepError: What it raised.
            UnavailableError: It died for good, or the cluster has become too small for it.
        """
        while True:
            try:
                return ray.get(asked, timeout=_PATIENCE_S)
            except GetTimeoutError:
                self._check_room()
            except RayTaskError as error:
                if not isinstance(error.cause, FedstepError):
                    raise  # a fault of somebody's code: with its traceback, as on one machine
                message = f"On the Ray node {self.node}: {error.cause.message}"
                raise type(error.cause)(message, error.cause.violations) from None
            except RayError as error:
                ray.kill(self.handle)  # other orders of this moment would only be tried in vain
                raise UnavailableError(
                    f"The Ray actor {self.number} of {self.team}, begun on {self.node}, died and could not be replaced "
                    f"({type(error).__name__}): look at Ray's logs there, give fewer --ray-actors if memory was short, "
                    "and run the same command again."
                ) from None

    def _check_room(self) -> None:
        """A team that lost a node waits for a place on another; where there is none, it would wait for ever."""
        left = cpus()
        if left < self.team:
            raise UnavailableError(
                f"The Ray cluster has lost nodes: {left} CPUs are left for {self.team} actors. Add nodes, or give "
                f"--ray-actors {max(left, 1)}, and run the same command again."
            )


class RayCrew:
    """Sends the orders of one moment to the actors that have their clients, and waits for all.

    Args:
        team: The actors.
        roster: All clients.
    """

    def __init__(self, team: Sequence[_Actor], roster: Roster) -> None:
        self._team = team
        self._roster = roster
        self._models: dict[bytes, ray.ObjectRef[PackedModel]] = {}

    @property
    def roster(self) -> Roster:
        """See `Crew.roster`."""
        return self._roster

    def train(self, orders: Sequence[Order]) -> list[Training]:
        """See `Crew.train`."""
        return [packed.unpacked() for packed in self._spread(orders, _ask_to_train)]

    def measure(self, orders: Sequence[Order]) -> list[Evaluated | FedstepError]:
        """See `Crew.measure`."""
        return self._spread(orders, _ask_to_measure)

    def _spread(self, orders: Sequence[Order], ask: _Ask[R]) -> list[R]:
        """The results of orders, each from the actor of its client, in the order of the orders."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, order in enumerate(orders):
            places[order.client % len(self._team)].append(place)
        asked = {}
        for number, theirs in places.items():
            models = {orders[place].job.model.sha256: self._sent(orders[place].job.model) for place in theirs}
            packed = [packed_order(orders[place]) for place in theirs]
            asked[number] = ask(self._team[number].handle, packed, list(models.values()))
        found: dict[int, R] = {}
        for number, promised in asked.items():
            results: list[R] = self._team[number].result(promised)
            found |= dict(zip(places[number], results, strict=True))
        return [found[place] for place in range(len(orders))]

    def _sent(self, model: Model) -> ray.ObjectRef[PackedModel]:
        """The model in the cluster's memory: put there once, for all clients and rounds that use it."""
        sent = self._models.pop(model.sha256, None)
        self._models[model.sha256] = sent = ray.put(PackedModel.of(model)) if sent is None else sent
        while len(self._models) > _MODELS_HELD:
            del self._models[next(iter(self._models))]
        return sent


def _ask_to_train(
    shard: ActorHandle[Any], orders: list[Order], models: list[ray.ObjectRef[PackedModel]]
) -> ray.ObjectRef[list[PackedTraining]]:
    asked: ray.ObjectRef[list[PackedTraining]] = shard.train.remote(orders, *models)
    return asked


def _ask_to_measure(
    shard: ActorHandle[Any], orders: list[Order], models: list[ray.ObjectRef[PackedModel]]
) -> ray.ObjectRef[list[Evaluated | FedstepError]]:
    asked: ray.ObjectRef[list[Evaluated | FedstepError]] = shard.measure.remote(orders, *models)
    return asked
