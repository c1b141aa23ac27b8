"""The part of `deadlines` on a virtual clock: many clients of log-normal speeds, some of them away at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import ConcatDataset

from fedstep.common.evaluate import evaluate
from fedstep.common.task import Samples
from fedstep.common.tasks import full_hyperparameters, load_task
from fedstep.common.tensors import Manifest, unpack
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.narrate import taken_late
from fedstep.server.storage.base import AssignmentRecord
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.population import CPU, Population
from fedstep.simulation.run import Federation, SimulatedRunner, simulate
from fedstep.simulation.speed import SpeedModel
from fedstep.simulation.virtual_loop import START
from tests.bench.fleet import ROOT
from tests.bench.policies import Policy, Ran, Terms, Waits, trained_in

TASK = "tests/bench/writers_parts.py"
SLOWEST = 0.25
"""Of the clients are called the slow ones."""


@dataclass(frozen=True)
class Crowd:
    """The clients.

    Attributes:
        data: Path to the writers' digits.
        clients: How many.
        sigma: Standard deviation of the logarithm of their speeds.
        away: The share that is away at any time.
        away_for_s: Mean length of an absence.
        step_ms: Of the median client: phones, not servers, so that rounds take as long as absences matter.
        seed: Of everything.
    """

    data: str
    clients: int
    sigma: float
    away: float
    away_for_s: float
    step_ms: float
    seed: int

    def federation(self) -> Federation:
        speed = SpeedModel(step_ms=self.step_ms, sample_ms=self.step_ms / 10, spread=self.sigma)
        hardship = Hardship(away_share=self.away, away_for_s=self.away_for_s)
        return Federation(self.clients, {"data": self.data}, speed, seed=self.seed, hardship=hardship)


class Stage:
    """The clients' data, loaded once for all policies."""

    def __init__(self, crowd: Crowd) -> None:
        torch.set_num_threads(1)
        self.crowd = crowd
        self.federation = crowd.federation()
        self.task = load_task(str(ROOT / TASK))
        self.population = Population(self.task, crowd.clients, self.federation.options)
        paces = self.federation.speed.draw(crowd.clients, crowd.seed)
        by_speed = sorted(range(crowd.clients), key=lambda client: -paces[client].step_ms)
        self.slow = by_speed[: round(SLOWEST * crowd.clients)]

    def accuracy(self, payload: torch.Tensor, samples: Samples) -> float:
        model = self.task.build_model(full_hyperparameters(self.task, {}))
        model.load_state_dict(unpack(payload, Manifest.of(model.state_dict())))
        metrics, _ = evaluate(self.task, model, samples, CPU)
        return metrics["accuracy"]

    def of_clients(self, clients: Sequence[int]) -> Samples:
        pool = self.population.training
        assert pool is not None
        return ConcatDataset([pool.share(client) for client in clients])


def ran(policy: Policy, stage: Stage, terms: Terms) -> Ran:
    """One study of one policy.

    Args:
        policy: Which.
        stage: The clients.
        terms: Of the study; its seconds are virtual.
    """
    spec = policy.study(stage.task.name, terms, stage.crowd.seed, 1)
    held_out = stage.population.held_out
    assert held_out is not None
    times: list[float] = []
    accuracy: list[float] = []
    payloads: list[torch.Tensor] = []

    def on_commit(runner: SimulatedRunner) -> None:
        best = runner.best()
        payload = runner.payload(best) if best else None
        if payload is not None:
            payloads[:] = [payload.clone()]
            times.append(runner.virtual_s)
            accuracy.append(stage.accuracy(payload, held_out))

    found = simulate(spec, stage.task, stage.federation, population=stage.population, on_commit=on_commit)
    ended = {record.round: (record.ended_at - START).total_seconds() for record in found.rounds}
    asked = [a for a in found.assignments if a.work == "train"]
    late = taken_late(found.events)
    everyone = range(stage.crowd.clients)
    return Ran(
        policy.text,
        times,
        accuracy,
        len(found.rounds),
        stage.accuracy(payloads[0], stage.of_clients(everyone)) if payloads else float("nan"),
        stage.accuracy(payloads[0], stage.of_clients(stage.slow)) if payloads else float("nan"),
        Waits.of(stage.population.names, asked, ended, late),
        asked,
        "" if found.record.state.value == "completed" else f"{found.record.state.value}: {found.record.message}",
        there=_there(stage, asked, ended, late),
    )


def _there(
    stage: Stage, asked: Sequence[AssignmentRecord], ended: Mapping[int, float], late: Sequence[TakenLate]
) -> list[int]:
    """At the start of how many rounds each of those was there that were never trained."""
    names, federation = stage.population.names, stage.federation
    trained = {client for client, _ in trained_in(asked, late)}
    begins_s = [0.0, *sorted(ended.values())[:-1]]
    handicaps = zip(names, federation.hardship.draw(names, federation.seed), strict=True)
    untrained = [handicap.absences for name, handicap in handicaps if name not in trained]
    return [sum(absences.at(second)[0] > second for second in begins_s) for absences in untrained]
