"""What a cohort did for a round."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.storage.base import NewEvent
from fedstep.server.tuning.base import ClientReport
from fedstep.v1 import fleet_pb2

FAULTS = frozenset({Status.DIVERGED, Status.REFUSED, Status.FAILED, Status.LOST, Status.LATE})
"""Ends of an assignment that are bad."""


@dataclass(frozen=True)
class Trained:
    """Everybody's part in a training that is over.

    Attributes:
        assignments: In the order of dispatch; of a buffered round in the order of their ends.
        cohort: Who was asked.
        attempt: The round's attempt.
        quorum: Updates without which it does not count.
        ran_away: Of the assignments: those whose update was of a training that ran away.
        events: What its clients were told while they trained.
    """

    assignments: Sequence[OpenAssignment]
    cohort: tuple[str, ...] = ()
    attempt: int = 1
    quorum: int = 1
    ran_away: Sequence[OpenAssignment] = ()
    events: Sequence[NewEvent] = ()

    @property
    def accepted(self) -> list[OpenAssignment]:
        """The assignments that brought what was asked for."""
        return [a for a in self.assignments if a.standing is Status.ACCEPTED]

    @property
    def faults(self) -> list[OpenAssignment]:
        """The assignments that ended badly."""
        return [a for a in self.assignments if a.standing in FAULTS]

    @property
    def diverged(self) -> list[OpenAssignment]:
        """The assignments whose training ran away, by their losses or by their update."""
        return [*(a for a in self.assignments if a.standing is Status.DIVERGED), *self.ran_away]

    @property
    def partial(self) -> int:
        """Updates of fewer steps than were due."""
        return sum("part" in a.metrics for a in self.accepted)

    @property
    def staleness(self) -> float:
        """Rounds between the models that the updates were made of and the one they went into, on average."""
        stale = [a.metrics.get("staleness", 0.0) for a in self.accepted]
        return math.fsum(stale) / len(stale) if stale else 0.0

    def train_loss(self) -> float:
        """The weighted mean of the clients' training losses."""
        return weighted_mean([(a.metrics["loss"], a.samples) for a in self.accepted])

    def reports(self, points: int) -> tuple[ClientReport, ...]:
        """What each client told of its part.

        Args:
            points: How many configurations they were dealt.
        """
        return tuple(_report(a, position % max(1, points)) for position, a in enumerate(self.assignments))


def failure(assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> tuple[Status, str]:
    """How an assignment ends whose client says that it brings nothing, and why.

    It is no fault of a client's that it had nothing when it was told to send what it had.
    """
    if assignment.told and outcome.status == fleet_pb2.OUTCOME_STATUS_ABANDONED:
        return Status.ABANDONED, f"it had nothing yet when it was told to send what it has: {reason_of(outcome)}"
    refused = outcome.status == fleet_pb2.OUTCOME_STATUS_REFUSED
    return Status.REFUSED if refused else Status.FAILED, reason_of(outcome)


def reason_of(outcome: fleet_pb2.Outcome) -> str:
    """What a client says of an outcome, as far as it is told on."""
    return outcome.message[:500] or "no reason given"


def weighted_mean(values: Sequence[tuple[float, int]]) -> float:
    """The mean of values with their weights; nan without any weight."""
    total = sum(weight for _, weight in values)
    return math.fsum(value * weight for value, weight in values) / total if total else math.nan


def _report(assignment: OpenAssignment, point: int) -> ClientReport:
    accepted = assignment.standing is Status.ACCEPTED
    return ClientReport(
        name=assignment.member.name,
        point=point,
        diverged=assignment.standing is Status.DIVERGED,
        samples=assignment.samples if accepted else 0,
        losses=tuple(assignment.log.loss),
        step_ms=tuple(assignment.log.step_ms),
        loss_before=assignment.metrics.get("validation_loss_before"),
        loss_after=assignment.metrics.get("validation_loss_after"),
        validation_samples=assignment.member.validation_samples,
    )
