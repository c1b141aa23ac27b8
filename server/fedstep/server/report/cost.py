"""What a study has cost, what it was spent on, and what of it is there only because the study tunes.

The paper that fedstep generalises leaves the overhead of tuning unmeasured (Saadati and Amini, arXiv 2411.12244).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add

from fedstep.common.amounts import fieldwise
from fedstep.server.report.decisions import is_decision
from fedstep.server.report.lineage import Role, Tree
from fedstep.server.storage.base import (
    AssignmentRecord,
    Event,
    StudyRecord,
    TrialRecord,
    TrialState,
)
from fedstep.server.storage.costs import ArmCost, Overhead

NOT_TUNING = ("fixed", "schedule")
"""Tuners that tune nothing: all that they spend makes the one model."""


class Purpose(StrEnum):
    """What was paid for; docs/protocol.md says more of each at `PurposeCost`."""

    DELIVERED = "delivered"
    MEASURING = "measuring"
    PROBE = "probe"
    SCREEN = "screen"
    FORKS = "forks"
    REWOUND = "rewound"
    AVERAGES = "averages"
    PRUNED = "pruned"
    TRIALS = "trials"
    FAILED = "failed"
    RUNNING = "running"
    EARLIER = "earlier"


_BY_ROLE = {
    Role.LINEAGE: Purpose.DELIVERED,
    Role.AVERAGED: Purpose.DELIVERED,
    Role.SCREENED: Purpose.SCREEN,
    Role.REJECTED: Purpose.FORKS,
    Role.REWOUND: Purpose.REWOUND,
    Role.FAILED: Purpose.FAILED,
    Role.RUNNING: Purpose.RUNNING,
    Role.MEASURED: Purpose.AVERAGES,
    Role.ASKED: Purpose.PROBE,
}


@dataclass(frozen=True)
class Spending:
    """An amount of everything that is paid with, as in the protocol's message of that name."""

    rounds: int = 0
    client_rounds: int = 0
    model_bytes: int = 0
    measuring_bytes: int = 0
    update_bytes: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    measuring_seconds: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return fieldwise(add, self, other)

    @property
    def payload_bytes(self) -> int:
        """Both ways."""
        return self.model_bytes + self.update_bytes


@dataclass
class ClientCost:
    """What one client was asked for and did, as in the protocol's message of that name."""

    client: str
    trainings: int = 0
    measurements: int = 0
    model_bytes: int = 0
    update_bytes: int = 0
    training_seconds: float = 0.0
    measuring_seconds: float = 0.0


@dataclass(frozen=True)
class PurposeCost:
    """What was spent on one purpose.

    Attributes:
        purpose: Which.
        trials: Trials or arms of it.
        spent: On it.
        assignments: Trainings and measurements that clients were asked for.
        tuning: Whether only tuning needs it.
    """

    purpose: Purpose
    trials: int
    spent: Spending
    assignments: int
    tuning: bool


class ByPurpose:
    """What is told by purpose, summed up.

    Attributes:
        purposes: What was spent on each.
    """

    purposes: Sequence[PurposeCost]

    @property
    def total(self) -> Spending:
        """All of it."""
        return sum((one.spent for one in self.purposes), Spending())

    @property
    def tuning(self) -> Spending:
        """What only tuning needs."""
        return sum((one.spent for one in self.purposes if one.tuning), Spending())


@dataclass(frozen=True)
class StudyCost(ByPurpose):
    """What a study has cost.

    Attributes:
        wall_seconds: That it was under way.
        purposes: What it was spent on; together they are all of it.
        clients: Who did the work, by name.
        overhead: What the coordinator spent itself.
        journal_bytes: Of JSON, of the tuner's state as it is kept.
        event_bytes: Of the events that tell of trials and decisions.
    """

    wall_seconds: float
    purposes: Sequence[PurposeCost]
    clients: Sequence[ClientCost]
    overhead: Overhead
    journal_bytes: int
    event_bytes: int

    @property
    def byte_share(self) -> float:
        """Of all payload bytes, those that only tuning needs."""
        return self.tuning.payload_bytes / max(1, self.total.payload_bytes)

    @property
    def added_cpu_seconds(self) -> float:
        """Of the coordinator's CPU, what tuning adds: its calls', and its share of assignments of all else."""
        everything = sum(one.assignments for one in self.purposes)
        added = sum(one.assignments for one in self.purposes if one.tuning)
        calls = self.overhead.tuner_cpu_seconds
        return calls + max(0.0, self.overhead.cpu_seconds - calls) * added / max(1, everything)

    @property
    def added_seconds(self) -> float:
        """Of the wall-clock, what tuning adds: its rounds and measurements, and the tuner's calls."""
        return self.tuning.seconds + self.overhead.tuner_seconds

    @property
    def text(self) -> str:
        """In a sentence or two."""
        total, tuning, tuner = self.total, self.tuning, self.overhead
        return (
            f"Of {total.rounds} rounds and {megabytes(total.payload_bytes)}, tuning added {tuning.rounds} rounds, "
            f"{megabytes(tuning.payload_bytes)} ({self.byte_share:.0%}) and {self.added_seconds:.1f} s. Of these the "
            f"tuner itself took {tuner.tuner_seconds:.2f} s, {tuner.tuner_cpu_seconds:.2f} s on the CPU."
        )


@dataclass
class _Clients:
    """What clients did for one arm."""

    assignments: int = 0
    evaluations: int = 0
    measuring_bytes: int = 0
    training_seconds: float = 0.0
    measuring_seconds: float = 0.0
    waits: dict[tuple[int, int], float] = field(default_factory=dict)
    """By round and attempt, how long its slowest measurement took: so long was waited for all of them."""


class CostTally:
    """Adds up what clients did, one assignment after the other."""

    def __init__(self) -> None:
        self._arms: dict[int, _Clients] = {}
        self._clients: dict[str, ClientCost] = {}

    def add(self, assignments: Iterable[AssignmentRecord]) -> None:
        """Counts some."""
        for record in assignments:
            arm = self._arms.setdefault(record.trial, _Clients())
            client = self._clients.setdefault(record.client, ClientCost(record.client))
            arm.assignments += 1
            client.model_bytes += record.model_bytes
            client.update_bytes += record.payload_bytes
            if record.work == "train":
                arm.training_seconds += record.elapsed_s
                client.trainings += 1
                client.training_seconds += record.elapsed_s
                continue
            attempt = record.round, record.attempt
            arm.evaluations += 1
            arm.measuring_bytes += record.model_bytes
            arm.measuring_seconds += record.elapsed_s
            arm.waits[attempt] = max(arm.waits.get(attempt, 0.0), record.elapsed_s)
            client.measurements += 1
            client.measuring_seconds += record.elapsed_s

    @property
    def clients(self) -> list[ClientCost]:
        """Every client's part, by name."""
        return [self._clients[name] for name in sorted(self._clients)]

    def arm(self, cost: ArmCost) -> tuple[Spending, Spending, int, int]:
        """What an arm's training and its measurements took, and the assignments of each."""
        did = self._arms.get(cost.trial, _Clients())
        model_bytes = cost.payload_bytes - cost.update_bytes
        measuring_bytes = min(did.measuring_bytes, model_bytes)
        measuring_s = min(sum(did.waits.values()), cost.seconds)
        training = Spending(
            cost.rounds,
            cost.client_rounds,
            model_bytes - measuring_bytes,
            0,
            cost.update_bytes,
            cost.seconds - measuring_s,
            did.training_seconds,
        )
        measuring = Spending(
            model_bytes=measuring_bytes,
            measuring_bytes=measuring_bytes,
            seconds=measuring_s,
            measuring_seconds=did.measuring_seconds,
        )
        return training, measuring, did.assignments - did.evaluations, did.evaluations


def cost_of_study(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    delivered: int | None,
    costs: Iterable[ArmCost],
    tally: CostTally,
    overhead: Overhead,
    event_bytes: int,
) -> StudyCost:
    """What a study has cost.

    Args:
        study: As it stands.
        trials: All of its trials.
        delivered: The one whose model it ended with, or would end with now; None where there is none.
        costs: What each of them has cost.
        tally: What clients did.
        overhead: What the coordinator spent itself.
        event_bytes: Of the events that tell of trials and decisions.
    """
    purposes = {branch.trial.number: _purpose(branch.role, branch.trial) for branch in Tree(trials, delivered).branches}
    tunes = study.spec.tuner.name not in NOT_TUNING
    found: dict[Purpose, PurposeCost] = {}

    def pay(purpose: Purpose, trials: int, spent: Spending, assignments: int) -> None:
        tuning = tunes and purpose not in (Purpose.DELIVERED, Purpose.EARLIER)
        before = found.get(purpose, PurposeCost(purpose, 0, Spending(), 0, tuning))
        all_of_them = before.trials + trials, before.spent + spent, before.assignments + assignments
        found[purpose] = PurposeCost(purpose, *all_of_them, tuning)

    paid = ArmCost(-1)
    for cost in costs:
        purpose = purposes.get(cost.trial, Purpose.FAILED)
        training, measuring, trainings, evaluations = tally.arm(cost)
        if purpose is Purpose.DELIVERED:
            pay(purpose, 1, training, trainings)
            pay(Purpose.MEASURING, 0, measuring, evaluations)
        else:
            pay(purpose, 1, training + measuring, trainings + evaluations)
        paid += cost
    spent = study.spent
    if spent.payload_bytes > paid.payload_bytes or spent.rounds > paid.rounds:
        rest = (spent.rounds - paid.rounds, spent.client_rounds - paid.client_rounds)
        pay(Purpose.EARLIER, 0, Spending(*rest, model_bytes=spent.payload_bytes - paid.payload_bytes), 0)
    return StudyCost(
        study.seconds_spent,
        [found[purpose] for purpose in Purpose if purpose in found],
        tally.clients,
        overhead,
        len(json.dumps(study.tuner_state)),
        event_bytes,
    )


def tuning_event_bytes(events: Iterable[Event]) -> int:
    """Bytes of text and JSON of those events that tell of trials and decisions."""
    told = (event for event in events if event.kind.startswith("trial_") or is_decision(event.kind))
    return sum(len(event.text.encode()) + len(json.dumps(event.details)) for event in told)


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def _purpose(role: Role, trial: TrialRecord) -> Purpose:
    if role is not Role.SCREENED or trial.details.get("phase"):
        return _BY_ROLE[role]
    return Purpose.PRUNED if trial.state is TrialState.PRUNED else Purpose.TRIALS
