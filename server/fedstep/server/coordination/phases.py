"""The two phases of a round that clients take part in: training and evaluation.

Each opens assignments, gathers what comes back, and is over when it has what it wants, when nothing more can come,
or when its deadline passes: by the coordinator's own timer, never by an arriving message.
"""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

import torch

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.aggregation.checks import DivergedUpdateError
from fedstep.server.coordination import narrate
from fedstep.server.coordination.intake import ABSURD, MAX_STALENESS, Intake
from fedstep.server.coordination.late import LateUpdates
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.patience import Patience
from fedstep.server.coordination.projection import RoundEnd
from fedstep.server.coordination.steering import Steering, UploadTime
from fedstep.server.coordination.trained import FAULTS, Trained, failure, reason_of, weighted_mean
from fedstep.server.coordination.under_way import Kind, UnderWay
from fedstep.server.report.units import seconds_text
from fedstep.server.storage.base import NewEvent
from fedstep.v1 import fleet_pb2

MAX_METRICS = 64
MAX_METRIC_NAME = 100

_LEAST_WAIT_S = 0.001


class Phase(ABC):
    """Assignments that are waited for together.

    Args:
        ledger: Where they are opened and closed.
        wanted: The phase is over when so many have been accepted.
        deadline_s: It is over so many seconds after `begin`, whatever has come.
    """

    kind: ClassVar[Kind]

    def __init__(self, ledger: Ledger, wanted: int, deadline_s: float) -> None:
        self._ledger = ledger
        self._wanted = wanted
        self.deadline_s = deadline_s
        self._over = asyncio.Event()
        self.assignments: list[OpenAssignment] = []

    @property
    def accepted(self) -> list[OpenAssignment]:
        """The assignments that brought what was asked for."""
        return self._with(Status.ACCEPTED)

    @property
    def faults(self) -> list[OpenAssignment]:
        """The assignments that ended badly."""
        return self._with(*FAULTS)

    def _with(self, *statuses: Status) -> list[OpenAssignment]:
        return [assignment for assignment in self.assignments if assignment.standing in statuses]

    def under_way(self) -> UnderWay | None:
        """How it stands; None where nobody was asked."""
        if not self.assignments:
            return None
        first = self.assignments[0]
        return UnderWay(
            self.kind,
            first.message.trial,
            first.message.round,
            first.ref.attempt,
            self._wanted,
            len(self.accepted),
            first.sent_at,
            self._end_s,
            self.assignments,
        )

    def begin(self, assignments: Sequence[OpenAssignment]) -> None:
        """Sends the work out."""
        self.assignments = list(assignments)
        for assignment in assignments:
            self._ledger.open(assignment)
        self._check()

    async def wait(self) -> None:
        """Waits for the end of the phase, then calls off what is still open."""
        try:
            await self._until_over()
            status, reason = Status.ABANDONED, "enough clients have answered"
        except TimeoutError:
            status, reason = Status.LATE, f"the deadline of {seconds_text(self._end_s)} has passed"
        self._over.set()
        await self._come_to_rest()
        self._finish(status, reason)

    async def _until_over(self) -> None:
        """Waits until the phase is over.

        Raises:
            TimeoutError: Its time is up.
        """
        async with asyncio.timeout(self.deadline_s):
            await self._over.wait()

    @property
    def _end_s(self) -> float:
        """When its time is up."""
        return self.deadline_s

    @property
    def time_left_s(self) -> float:
        """What its clients are told: how long their work will be waited for."""
        return self.deadline_s

    async def _come_to_rest(self) -> None:
        """Lets what is being taken in at this moment be taken in whole; nothing more is begun."""
        return

    def _finish(self, status: Status, reason: str) -> None:
        """Ends what is still open."""
        self.call_off(status, reason)

    def call_off(self, status: Status, reason: str) -> None:
        """Ends every open assignment and tells its client to stop."""
        for assignment in self._with(Status.OPEN):
            self._ledger.dismiss(assignment, status, reason)
        self._over.set()

    @abstractmethod
    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """See `ledger.Owner`."""

    @abstractmethod
    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """See `ledger.Owner`."""

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment."""
        self._ledger.close(assignment, status, message)
        self._check()

    def _check(self) -> None:
        if len(self.accepted) >= self._wanted or not self._with(Status.OPEN):
            self._over.set()


class TrainingPhase(Phase):
    """Trains a cohort; every update goes into the mean as it lands.

    Args:
        ledger: See `Phase`.
        wanted: See `Phase`.
        deadline_s: See `Phase`.
        intake: Takes the updates in, in the order they arrive.
        upload_s: How long updates are expected to be on their way.
        latest_s: Where it is worth it, the end is put off, and never further than this; 0: it is not.
        late: Takes over what is open at the end; None where nobody does.
        quorum: Only where so many were in time.
        unhurried: Names of those whom the end of the round does not stop, where somebody takes over.
        newcomers: Names of those who send what they have then, though enough others have answered.
        open_end: Whether the deadline is nobody's guess: the round ends sooner where waiting does not pay.
    """

    kind = Kind.TRAIN

    def __init__(
        self,
        ledger: Ledger,
        wanted: int,
        deadline_s: float,
        *,
        intake: Intake,
        upload_s: UploadTime,
        latest_s: float = 0.0,
        late: LateUpdates | None = None,
        quorum: int = 1,
        unhurried: Collection[str] = (),
        newcomers: Collection[str] = (),
        open_end: bool = False,
    ) -> None:
        super().__init__(ledger, wanted, deadline_s)
        self._intake = intake
        end = RoundEnd.at(deadline_s, latest_s)
        self._steering = Steering(ledger, end, upload_s, may_end_from=quorum if open_end else 0)
        self._late = late
        self._quorum = quorum
        self._unhurried = frozenset(unhurried if late else ())
        self._newcomers = frozenset(newcomers)
        self._closed = False
        self._settled = asyncio.Event()
        self._ran_away: list[OpenAssignment] = []

    @property
    def events(self) -> list[NewEvent]:
        """What its clients were told while they trained."""
        return self._steering.events

    @property
    def _end_s(self) -> float:
        return self._steering.end.end_s

    @property
    def time_left_s(self) -> float:
        """Longer, where late work is of use: who gave up at the deadline would have nothing to send."""
        rounds = 1 + MAX_STALENESS if self._unhurried else 2 if self._late else 1
        return rounds * self.deadline_s

    def _open(self, names: Collection[str]) -> list[OpenAssignment]:
        return [a for a in self._with(Status.OPEN) if a.member.name in names]

    def _hurried(self) -> list[OpenAssignment]:
        return [a for a in self._with(Status.OPEN) if a.member.name not in self._unhurried]

    async def _until_over(self) -> None:
        began_s = self._ledger.clock.monotonic()
        while not self._over.is_set():
            now_s = self._ledger.clock.monotonic() - began_s
            if now_s >= self._end_s - _LEAST_WAIT_S:
                raise TimeoutError
            look_again_s = self._steering.look(self._hurried(), len(self.accepted), now_s)
            wait_s = min(max(look_again_s - now_s, self._steering.least_wait_s), self._end_s - now_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_LEAST_WAIT_S, wait_s)):
                    await self._over.wait()

    async def _come_to_rest(self) -> None:
        await self._intake.come_to_rest(self, self._close)

    def _close(self) -> None:
        self._closed = True

    def _finish(self, status: Status, reason: str) -> None:
        if self._late is not None and len(self.accepted) >= self._quorum:
            unhurried = self._open(self._unhurried)
            self._late.wait_for(unhurried, reason)
            self._tell(narrate.going_on(unhurried, reason))
            late = self._open(self._newcomers) if status is Status.ABANDONED else self._with(Status.OPEN)
            self._late.take_over(late, reason)
        if status is Status.ABANDONED and (left := self._with(Status.OPEN)):
            self._tell(narrate.dismissed(left, reason, left[0].message.round))
        super()._finish(status, reason)

    def _tell(self, events: Iterable[NewEvent]) -> None:
        now = self._ledger.clock.now()
        self.events.extend(replace(event, happened_at=now) for event in events)

    def call_off(self, status: Status, reason: str) -> None:
        """See `Phase.call_off`."""
        super().call_off(status, reason)
        self._settled.set()

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment; not one whose update is in the sum already or about to be: that one is accepted."""
        if assignment is not self._intake.taking:
            super().settle(assignment, status, message)

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Checks the update and adds it to the mean.

        Raises:
            InvalidInputError: It is refused: not finite, absurdly large, or of no samples.
            PreconditionError: The round ended while it waited its turn.
        """
        try:
            await self._intake.take(assignment, update, summary, self._over.is_set, lambda: self._closed)
        except InvalidInputError as error:
            if isinstance(error, DivergedUpdateError):
                self._ran_away.append(assignment)
            self.settle(assignment, Status.REFUSED, error.message)
            raise
        except PreconditionError:
            if not self._over.is_set():
                raise
            await self._settled.wait()  # whether somebody takes it over
            if assignment.owner is self:
                raise
            await assignment.owner.take_update(assignment, update, summary)
        else:
            self.settle(assignment, Status.ACCEPTED)

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """A client that sends no update says why; one that was asked for reports only has done its work."""
        if assignment.message.report_only and outcome.status == fleet_pb2.OUTCOME_STATUS_COMPLETED:
            assignment.samples = min(outcome.samples, assignment.member.train_samples)
            assignment.metrics = {"loss": outcome.metrics.get("loss", math.nan)}
            self.settle(assignment, Status.ACCEPTED)
            return
        self.settle(assignment, *failure(assignment, outcome))

    def trained(self, cohort: tuple[str, ...], attempt: int) -> Trained:
        """What came of it."""
        return Trained(self.assignments, cohort, attempt, self._quorum, self._ran_away, self.events)


class EvaluationPhase(Phase):
    """Measures one model on the validation sets of a cohort.

    It does not wait until the deadline for who has fallen silent: see `patience.Patience`.

    Args:
        ledger: See `Phase`.
        wanted: See `Phase`.
        deadline_s: See `Phase`.
        expected_s: Seconds that each of its clients is expected to take, by name, where that is known.
        silent: Names of those who are not waited for.
    """

    kind = Kind.MEASURE

    def __init__(
        self,
        ledger: Ledger,
        wanted: int,
        deadline_s: float,
        expected_s: Mapping[str, float] = MappingProxyType({}),
        silent: Collection[str] = (),
    ) -> None:
        super().__init__(ledger, wanted, deadline_s)
        self._patience = Patience(wanted, expected_s, silent)
        self._began_s = 0.0
        self._waiting: asyncio.Timeout | None = None
        self._ends_s = deadline_s

    @property
    def _end_s(self) -> float:
        return self._ends_s

    async def _until_over(self) -> None:
        self._began_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(self.deadline_s) as self._waiting:
            await self._over.wait()

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment; the others are waited for differently now."""
        super().settle(assignment, status, message)
        waiting = [one.member.name for one in self._with(Status.OPEN)]
        if not waiting or self._waiting is None or self._waiting.expired():
            return
        if status is Status.ACCEPTED:
            self._patience.answered(assignment.member.name, asyncio.get_running_loop().time() - self._began_s)
        self._ends_s = min(self.deadline_s, self._patience.until_s(waiting))
        self._waiting.reschedule(self._began_s + self._ends_s)

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Nobody asked for one.

        Raises:
            PreconditionError: Always.
        """
        raise PreconditionError(f"Assignment {assignment.ref.assignment_id} is an evaluation; it takes no update.")

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """Takes in one client's metrics."""
        declared = assignment.member.validation_samples
        if outcome.status != fleet_pb2.OUTCOME_STATUS_COMPLETED:
            self.settle(assignment, Status.FAILED, reason_of(outcome))
        elif not 0 < outcome.samples <= declared:
            self.settle(assignment, Status.REFUSED, f"claims {outcome.samples} validation samples of {declared}")
        elif not all(0 < len(name) <= MAX_METRIC_NAME and name.isprintable() for name in outcome.metrics):
            text = f"a metric's name is not 1 to {MAX_METRIC_NAME} printable characters"
            self.settle(assignment, Status.REFUSED, text)
        elif len(outcome.metrics) > MAX_METRICS:
            self.settle(
                assignment, Status.REFUSED, f"{len(outcome.metrics)} metrics, and at most {MAX_METRICS} are taken"
            )
        else:
            assignment.samples = outcome.samples
            assignment.metrics = dict(outcome.metrics)
            self.settle(assignment, Status.ACCEPTED)

    def refuse_outliers(self) -> None:
        """Refuses metrics that are not finite, unless most clients say so: then it is the model that is broken."""
        answers = self.accepted
        broken = [a for a in answers if not all(abs(value) < ABSURD for value in a.metrics.values())]
        if 2 * len(broken) <= len(answers):
            for assignment in broken:
                self._ledger.take_back(assignment, "its metrics are not finite, or absurdly large")

    def losses(self, metric: str) -> dict[str, float]:
        """One metric by client, where the client told it."""
        return {a.member.name: a.metrics[metric] for a in self.accepted if metric in a.metrics}

    def metrics(self) -> dict[str, float]:
        """The mean of every metric over the samples of the cohort, in the order of the clients' names."""
        answers = sorted(self.accepted, key=lambda a: a.member.name)
        names = sorted({name for answer in answers for name in answer.metrics})
        return {
            name: weighted_mean([(a.metrics[name], a.samples) for a in answers if name in a.metrics]) for name in names
        }
