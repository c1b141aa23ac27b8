"""The work that is out: every open assignment, and what came back of it."""

import logging
import math
import uuid
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

import numpy as np
import torch

from fedstep.common.clock import Clock
from fedstep.common.errors import DataLossError, InvalidInputError, PreconditionError
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.storage.base import AssignmentRecord, NewEvent, Steps
from fedstep.v1 import fleet_pb2

log = logging.getLogger(__name__)

CALLED_OFF_KEPT = 1_000
MAX_STEPS_A_REPORT = 10_000

MAX_STEPS_KEPT = 200_000
"""Steps of one assignment that are kept; later ones still reach the guard."""


class Status(StrEnum):
    """How an assignment stands."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DIVERGED = "diverged"
    ABANDONED = "abandoned"
    FAILED = "failed"
    LATE = "late"
    GOES_ON = "goes_on"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected."""
        return self is not Status.OPEN


class Owner(Protocol):
    """Who an assignment was made for: one phase of one round."""

    async def take_update(
        self, assignment: "OpenAssignment", update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Takes in a whole and verified update."""
        ...

    def take_outcome(self, assignment: "OpenAssignment", outcome: fleet_pb2.Outcome) -> None:
        """Takes in the end of an assignment that no update came from."""
        ...

    def settle(self, assignment: "OpenAssignment", status: Status, message: str) -> None:
        """Ends an assignment without a result."""
        ...


class StepLog:
    """The local steps of one assignment, packed: 12 bytes a step."""

    def __init__(self) -> None:
        self.loss = array("f")
        self.samples = array("I")
        self.step_ms = array("f")

    def add(self, report: fleet_pb2.StepReport) -> None:
        """Appends a report. A gap is filled with nan, what was reported before is passed over."""
        count = min(len(report.loss), len(report.samples), len(report.step_ms))
        if report.first_step + count > MAX_STEPS_KEPT:
            return
        gap = report.first_step - len(self.loss)
        if gap > 0:
            self.loss.extend([math.nan] * gap)
            self.samples.extend([0] * gap)
            self.step_ms.extend([math.nan] * gap)
        skip = max(0, -gap)
        self.loss.extend(report.loss[skip:count])
        self.samples.extend(report.samples[skip:count])
        self.step_ms.extend(report.step_ms[skip:count])

    def root_mean_square_loss(self) -> float | None:
        """Of the losses that are finite; None where there is none."""
        losses = np.frombuffer(self.loss, np.float32).astype(np.float64)
        losses = losses[np.isfinite(losses)]
        return float(np.sqrt(np.mean(losses**2))) if losses.size else None

    def steps(self) -> Steps:
        """The steps for the store."""
        return Steps(self.loss, self.samples, self.step_ms)


@dataclass(eq=False)
class OpenAssignment:
    """One client's piece of work in one phase of a round.

    Attributes:
        message: What the client was sent.
        member: The client.
        owner: The phase it belongs to.
        update_bytes: The size its update must have; 0 for an evaluation.
        model_bytes: That of the model it was sent.
        sent_at: By the coordinator's monotonic clock.
        fetch_s: How long the client says that its model took to come.
        train_s: The same of its local steps.
        push_s: How long its update took to come, by the coordinator's clock.
        plan: Its local steps; of an evaluation those it would train.
        reported_at: When the last of its steps were reported, by the same clock; `sent_at` before.
        told: Why it was told to stop and send what it has; "" while it was not.
        told_at: When that was, by the same clock as `sent_at`.
        left_as: How it stood when its round ended and its update might still come: LATE, or GOES_ON where that was no
            fault of its client's; None while it is not so.
        left_at: When that was, monotonic seconds: its steps up to then are on record.
        weights_norm: L2 norm of the model it starts from.
    """

    message: fleet_pb2.Assignment
    member: Member
    owner: Owner
    update_bytes: int
    sent_at: float
    deadline_s: float
    guard: LossGuard
    plan: LocalPlan
    reported_at: float = 0.0
    told: str = ""
    told_at: float = 0.0
    left_as: Status | None = None
    left_at: float = 0.0
    weights_norm: float = 0.0
    model_bytes: int = 0
    status: Status = Status.OPEN
    note: str = ""
    samples: int = 0
    elapsed_s: float = 0.0
    payload_bytes: int = 0
    fetch_s: float = 0.0
    train_s: float = 0.0
    push_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    log: StepLog = field(default_factory=StepLog)

    @property
    def ref(self) -> fleet_pb2.AssignmentRef:
        """Its fencing token."""
        return self.message.ref

    @property
    def standing(self) -> Status:
        """How it stands in the round that it was made for, whatever comes of it later."""
        return self.left_as or self.status

    @property
    def late(self) -> bool:
        """Whether its round is over, and its update may still come."""
        return self.left_as is not None

    @property
    def is_training(self) -> bool:
        """Whether it is to train, not to evaluate."""
        return self.message.work == fleet_pb2.WORK_TRAIN

    @property
    def work(self) -> str:
        """What it is, as it is kept: `train` or `evaluate`."""
        return "train" if self.is_training else "evaluate"

    @property
    def called(self) -> str:
        """What it is, for people."""
        return "training" if self.is_training else "measurement"

    def check_size(self, payload_bytes: int) -> None:
        """Checks an update before it is read.

        Raises:
            InvalidInputError: It is not of the size that its update must have.
        """
        if payload_bytes != self.update_bytes:
            raise InvalidInputError(
                f"An update of {payload_bytes} bytes where the model has {self.update_bytes}: "
                "its shape is not the model's."
            )

    def record(self) -> AssignmentRecord:
        """The assignment for the store."""
        return AssignmentRecord(
            assignment_id=f"{self.ref.assignment_id}/{self.ref.attempt}",
            trial=self.message.trial,
            round=self.message.round,
            attempt=self.ref.attempt,
            client=self.member.name,
            work=self.work,
            status=self.standing.value,
            message=self.note,
            samples=self.samples,
            elapsed_s=self.elapsed_s,
            payload_bytes=self.payload_bytes,
            metrics=self.metrics,
            steps=self.log.steps() if self.log.loss else None,
            model_bytes=self.model_bytes,
        )


class Ledger:
    """Every open assignment of every study, by its id.

    Args:
        fleet: Who does the work.
        clock: For how long things took.

    Attributes:
        life: Stands in every id: what an earlier life of the coordinator gave out is never taken for this one's.
        clock: That of its times.
    """

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self.life = uuid.uuid4().hex[:8]
        self._fleet = fleet
        self.clock = clock
        self._open: dict[str, OpenAssignment] = {}
        self._called_off: deque[str] = deque(maxlen=CALLED_OFF_KEPT)
        self._closed_hooks: list[Callable[[OpenAssignment], None]] = []
        self._fault_hooks: list[Callable[[str, NewEvent], None]] = []
        fleet.when_gone(self._lose)
        fleet.when_joined(self._hand_over_again)

    def under_way(self) -> list[OpenAssignment]:
        """Every open assignment of every study."""
        return [*self._open.values()]

    def when_closed(self, call: Callable[[OpenAssignment], None]) -> None:
        """Has `call` told of every assignment that ends."""
        self._closed_hooks.append(call)

    def when_fault(self, call: Callable[[str, NewEvent], None]) -> None:
        """Has `call` told of every fault that does not end an assignment: the study's name and the event."""
        self._fault_hooks.append(call)

    def fault(self, member: Member, assignment_id: str, kind: str, text: str) -> None:
        """Counts a client's fault and names it in the study that the assignment's id stands under."""
        member.faults += 1
        event = NewEvent(kind, f"{member.name}: {text}", {"client": member.name, "assignment": assignment_id[:200]})
        for call in self._fault_hooks:
            call(assignment_id.split("/", 1)[0], event)

    def open(self, assignment: OpenAssignment) -> None:
        """Sends the assignment to its client and keeps it until it is closed."""
        self._open[assignment.ref.assignment_id] = assignment
        assignment.reported_at = assignment.sent_at
        assignment.member.working += 1
        if assignment.is_training:
            assignment.member.busy = assignment.ref.assignment_id
        self._fleet.send(assignment.member, fleet_pb2.ConnectResponse(assignment=assignment.message))

    def hand_over(self, assignment: OpenAssignment, owner: Owner, left_as: Status, note: str) -> None:
        """The assignment's round is over, and it stays open for another owner."""
        assignment.owner, assignment.left_as, assignment.note = owner, left_as, note
        assignment.left_at = self.clock.monotonic()
        assignment.elapsed_s = assignment.left_at - assignment.sent_at
        assignment.member.late = True

    def close(self, assignment: OpenAssignment, status: Status, note: str = "") -> None:
        """Ends the assignment; nothing that comes later for it is taken."""
        if assignment.status is not Status.OPEN:
            return
        assignment.status = status
        if not assignment.late:
            assignment.note = note
        assignment.elapsed_s = self.clock.monotonic() - assignment.sent_at
        del self._open[assignment.ref.assignment_id]
        member = assignment.member
        member.working -= 1
        if member.busy == assignment.ref.assignment_id:
            member.busy, member.late = "", False
        if status is Status.ACCEPTED and assignment.is_training:
            member.updates_accepted += 1
        elif status in (Status.REFUSED, Status.FAILED, Status.LOST, Status.LATE, Status.DIVERGED):
            member.faults += 1
        if status in (Status.ABANDONED, Status.LATE):
            self._called_off.append(assignment.ref.assignment_id)
        _log(assignment)
        for call in self._closed_hooks:
            call(assignment)

    def take_back(self, assignment: OpenAssignment, note: str) -> None:
        """Refuses after all what was accepted: the others' answers have shown it to be wrong."""
        assignment.status, assignment.note = Status.REFUSED, note
        assignment.member.faults += 1

    def dismiss(self, assignment: OpenAssignment, status: Status, reason: str) -> None:
        """Tells the client to stop, because nobody will use its work, and closes the assignment."""
        self.direct(assignment.member, assignment.ref, reason)
        self.close(assignment, status, reason)

    def direct(self, member: Member, ref: fleet_pb2.AssignmentRef, reason: str) -> None:
        """Tells a client to abandon some work."""
        self._direct(member, fleet_pb2.Directive(ref=ref, kind=fleet_pb2.DIRECTIVE_KIND_ABANDON, reason=reason))

    def stop_and_send(self, assignment: OpenAssignment, reason: str) -> None:
        """Tells its client to take no further step and to send what it has."""
        assignment.told, assignment.told_at = reason, self.clock.monotonic()
        kind = fleet_pb2.DIRECTIVE_KIND_STOP_AND_SEND
        self._direct(assignment.member, fleet_pb2.Directive(ref=assignment.ref, kind=kind, reason=reason))

    def extend(self, assignment: OpenAssignment, deadline_s: float, reason: str) -> None:
        """Gives its client more time.

        Args:
            assignment: What it works on.
            deadline_s: Seconds after its dispatch, in all.
            reason: Why.
        """
        assignment.deadline_s = deadline_s
        directive = fleet_pb2.Directive(ref=assignment.ref, kind=fleet_pb2.DIRECTIVE_KIND_EXTEND, reason=reason)
        directive.time_left.FromTimedelta(self._time_left(assignment))
        self._direct(assignment.member, directive)

    def _direct(self, member: Member, directive: fleet_pb2.Directive) -> None:
        self._fleet.send(member, fleet_pb2.ConnectResponse(directive=directive))

    def _time_left(self, assignment: OpenAssignment) -> timedelta:
        return timedelta(seconds=max(0.1, assignment.deadline_s - (self.clock.monotonic() - assignment.sent_at)))

    def find(self, ref: fleet_pb2.AssignmentRef, member: Member) -> OpenAssignment:
        """The open assignment of that id and attempt, of that client.

        Raises:
            PreconditionError: It is closed, of another attempt, or another client's: what came is stale.
        """
        assignment = self._standing(ref, member)
        if assignment is None:
            raise PreconditionError(
                f"Assignment {ref.assignment_id!r:.200} attempt {ref.attempt} is over; its work is no longer wanted."
            )
        return assignment

    def _standing(self, ref: fleet_pb2.AssignmentRef, member: Member) -> OpenAssignment | None:
        assignment = self._open.get(ref.assignment_id)
        if assignment is None or assignment.ref.attempt != ref.attempt or assignment.member is not member:
            return None
        return assignment

    @contextmanager
    def update_for(self, ref: fleet_pb2.AssignmentRef, member: Member) -> Iterator[OpenAssignment]:
        """The assignment that an update has come for. What the block finds wrong with the update is put down here.

        Raises:
            PreconditionError: As in `find`. That is the client's fault, unless it was told a moment ago that nobody
                wants this work: then no harm is done when some comes yet.
            DataLossError: The block's: the update was damaged on its way; the client sends it again.
            InvalidInputError: The block's: the update is refused.
        """
        try:
            assignment = self.find(ref, member)
        except PreconditionError:
            if ref.assignment_id not in self._called_off:
                self.fault(member, ref.assignment_id, "update_stale", "an update came for work that is over")
            raise
        try:
            yield assignment
        except DataLossError as error:
            self.fault(member, ref.assignment_id, "update_corrupt", error.message)
            raise
        except InvalidInputError as error:
            assignment.owner.settle(assignment, Status.REFUSED, error.message)
            raise

    def report(self, member: Member, report: fleet_pb2.StepReport) -> None:
        """Takes in local steps: keeps them, and stops a client whose loss has run away or whose work is over."""
        assignment = self._standing(report.ref, member)
        if assignment is None:
            self.direct(member, report.ref, "this work is no longer wanted")
            return
        if not len(report.loss) == len(report.samples) == len(report.step_ms) <= MAX_STEPS_A_REPORT:
            text = f"a report of {len(report.loss)} steps, or of columns that differ in length, is passed over"
            self.fault(member, report.ref.assignment_id, "report_refused", text)
            return
        if not assignment.late:  # its steps are on record already
            assignment.log.add(report)
        assignment.reported_at = self.clock.monotonic()
        reason = assignment.guard.feed(report.loss)
        if reason:
            self.direct(member, assignment.ref, reason)
            assignment.owner.settle(assignment, Status.DIVERGED, reason)

    def outcome(self, member: Member, outcome: fleet_pb2.Outcome) -> None:
        """Takes in the end of an assignment; a stale one is passed over."""
        assignment = self._standing(outcome.ref, member)
        if assignment is not None:
            assignment.owner.take_outcome(assignment, outcome)

    def reconcile(self, member: Member, running: list[fleet_pb2.AssignmentRef]) -> None:
        """After a reconnect: what the client works on in vain is called off."""
        for ref in running:
            try:
                self.find(ref, member)
            except PreconditionError:
                self.direct(member, ref, "this work is no longer wanted")

    def _of(self, member: Member) -> list[OpenAssignment]:
        return [assignment for assignment in self._open.values() if assignment.member is member]

    def _lose(self, member: Member) -> None:
        for assignment in self._of(member):
            lease_s = self._fleet.policy.lease.total_seconds()
            assignment.owner.settle(assignment, Status.LOST, f"{member.name} was not heard of for {lease_s:g} s")

    def _hand_over_again(self, member: Member) -> None:
        """A client that came back is sent its open work again: it may never have arrived. A double is passed over."""
        for assignment in self._of(member):
            again = fleet_pb2.Assignment()
            again.CopyFrom(assignment.message)
            again.time_left.FromTimedelta(self._time_left(assignment))
            self._fleet.send(member, fleet_pb2.ConnectResponse(assignment=again))
            if assignment.told:
                self.stop_and_send(assignment, assignment.told)


def _log(assignment: OpenAssignment) -> None:
    if log.isEnabledFor(logging.INFO):
        message = assignment.message
        fields = {
            "study": message.ref.assignment_id.split("/", 1)[0],
            "trial": message.trial,
            "round": message.round,
            "client": assignment.member.name,
        }
        text, note = "%s %s after %.2f s%s", f": {assignment.note}" * bool(assignment.note)
        log.info(text, assignment.called, assignment.status.value, assignment.elapsed_s, note, extra={"fields": fields})
