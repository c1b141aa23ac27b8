"""The two phases of a round that clients take part in: training and evaluation.

Each opens assignments, gathers what comes back, and is over when it has what it wants, when nothing more can come,
or when its deadline passes: by the coordinator's own timer, never by an arriving message.
"""

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

import torch

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.checks import DivergedUpdateError, check_update
from fedstep.server.coordination.executors import Executor
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.projection import RoundEnd
from fedstep.server.coordination.steering import Steering, UploadTime, no_upload_time
from fedstep.server.storage.base import NewEvent
from fedstep.server.tuning.base import ClientReport
from fedstep.v1 import fleet_pb2

MAX_METRICS = 64
MAX_METRIC_NAME = 100
ABSURD = 1e100
"""Of a loss or a metric: no model has one, and sums over clients stay finite below it."""

_LEAST_WAIT_S = 0.001
_REST_S = 0.5
"""How long a phase that is over waits for an update whose arithmetic has not begun."""


class Phase(ABC):
    """Assignments that are waited for together.

    Args:
        ledger: Where they are opened and closed.
        wanted: The phase is over when so many have been accepted.
        deadline_s: It is over so many seconds after `begin`, whatever has come.
    """

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
        return self._with(Status.DIVERGED, Status.REFUSED, Status.FAILED, Status.LOST, Status.LATE)

    def _with(self, *statuses: Status) -> list[OpenAssignment]:
        return [assignment for assignment in self.assignments if assignment.status in statuses]

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
            status, reason = Status.LATE, f"the deadline of {self._end_s:g} s has passed"
        self._over.set()
        await self._come_to_rest()
        self.call_off(status, reason)

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

    async def _come_to_rest(self) -> None:
        """Lets what is being taken in at this moment be taken in whole; nothing more is begun."""
        return

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
        aggregator: Takes the updates in, in the order they arrive.
        compute: Where the arithmetic runs.
        weights_norm: L2 norm of the model that was sent out.
        max_update_ratio: An update of a norm this many times larger is refused.
        latest_s: Where it is worth it, the end is put off, and never further than this; 0: it is not.
        upload_s: How long updates are expected to be on their way.
    """

    def __init__(
        self,
        ledger: Ledger,
        wanted: int,
        deadline_s: float,
        *,
        aggregator: Aggregator,
        compute: Executor,
        weights_norm: float,
        max_update_ratio: float,
        latest_s: float = 0.0,
        upload_s: UploadTime = no_upload_time,
    ) -> None:
        super().__init__(ledger, wanted, deadline_s)
        self._aggregator = aggregator
        self._compute = compute
        self._weights_norm = weights_norm
        self._max_update_ratio = max_update_ratio
        self._steering = Steering(ledger, RoundEnd.at(deadline_s, latest_s), upload_s)
        self._one_at_a_time = asyncio.Lock()
        self._adding = threading.Lock()
        self._closed = False
        self._added: OpenAssignment | None = None
        self._taking: OpenAssignment | None = None
        self._ran_away: list[OpenAssignment] = []

    @property
    def events(self) -> list[NewEvent]:
        """What its clients were told while they trained."""
        return self._steering.events

    @property
    def _end_s(self) -> float:
        return self._steering.end.end_s

    async def _until_over(self) -> None:
        began_s = self._ledger.clock.monotonic()
        while not self._over.is_set():
            now_s = self._ledger.clock.monotonic() - began_s
            if now_s >= self._end_s - _LEAST_WAIT_S:
                raise TimeoutError
            look_again_s = self._steering.look(self._with(Status.OPEN), len(self.accepted), now_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_LEAST_WAIT_S, min(look_again_s, self._end_s) - now_s)):
                    await self._over.wait()

    async def _come_to_rest(self) -> None:
        """What has reached the sum is waited for, and for a moment what waits for its turn in a busy executor."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S), self._one_at_a_time:
                return
        if await asyncio.to_thread(self._close_sum):
            async with self._one_at_a_time:  # nothing of it is left to do that takes time
                return
        self._taking = None

    def _close_sum(self) -> bool:
        """From now on nothing is added; answers whether what is being taken in has been."""
        with self._adding:  # for one pass over memory at most
            self._closed = True
            return self._added is self._taking

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment; not one whose update is in the sum already or about to be: that one is accepted."""
        if assignment is not self._taking:
            super().settle(assignment, status, message)

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Checks the update and adds it to the mean.

        Raises:
            InvalidInputError: It is refused: not finite, absurdly large, or of no samples.
            PreconditionError: The round ended while it waited its turn.
        """
        async with self._one_at_a_time:
            if assignment.status is not Status.OPEN or self._over.is_set():
                raise _too_late(assignment)
            self._taking = assignment
            try:
                weight = self._weight(assignment, summary)
                await self._compute.run(self._check_and_add, assignment, update, weight, summary.steps)
            except InvalidInputError as error:
                self._taking = None
                if isinstance(error, DivergedUpdateError):
                    self._ran_away.append(assignment)
                self.settle(assignment, Status.REFUSED, error.message)
                raise
            finally:
                self._taking = None
            assignment.samples = summary.samples
            assignment.metrics = {"loss": summary.loss, "steps": float(summary.steps)} | _local_validation(summary)
            assignment.payload_bytes = assignment.update_bytes
            self.settle(assignment, Status.ACCEPTED)

    def _check_and_add(self, assignment: OpenAssignment, update: torch.Tensor, weight: float, steps: int) -> None:
        check_update(update, self._weights_norm, self._max_update_ratio)
        work = assignment.plan.work(steps)
        with self._adding:
            if self._closed:
                raise _too_late(assignment)
            self._aggregator.add(update, weight, work)
            self._added = assignment

    def _weight(self, assignment: OpenAssignment, summary: fleet_pb2.TrainingSummary) -> float:
        declared = assignment.member.train_samples
        if not 0 < summary.samples <= declared:
            raise InvalidInputError(
                f"{assignment.member.name} claims {summary.samples} training samples where it announced {declared}."
            )
        if not abs(summary.loss) < ABSURD:
            raise InvalidInputError(f"{assignment.member.name} claims a training loss of {summary.loss}.")
        return float(summary.samples)

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """A client that sends no update says why; one that was asked for reports only has done its work."""
        if assignment.message.report_only and outcome.status == fleet_pb2.OUTCOME_STATUS_COMPLETED:
            assignment.samples = min(outcome.samples, assignment.member.train_samples)
            assignment.metrics = {"loss": outcome.metrics.get("loss", math.nan)}
            self.settle(assignment, Status.ACCEPTED)
            return
        refused = outcome.status == fleet_pb2.OUTCOME_STATUS_REFUSED
        self.settle(
            assignment, Status.REFUSED if refused else Status.FAILED, outcome.message[:500] or "no reason given"
        )

    @property
    def partial(self) -> int:
        """Updates of fewer steps than were due."""
        return sum(0 < assignment.metrics.get("steps", 0.0) < assignment.plan.due for assignment in self.accepted)

    @property
    def diverged(self) -> list[OpenAssignment]:
        """The assignments whose training ran away, by their losses or by their update."""
        return [*self._with(Status.DIVERGED), *self._ran_away]

    def train_loss(self) -> float:
        """The weighted mean of the clients' training losses."""
        return _weighted_mean([(a.metrics["loss"], a.samples) for a in self.accepted])

    def reports(self, points: int) -> tuple[ClientReport, ...]:
        """What each client told of its part, in the order of dispatch.

        Args:
            points: How many configurations they were dealt.
        """
        return tuple(_report(a, position % max(1, points)) for position, a in enumerate(self.assignments))


class EvaluationPhase(Phase):
    """Measures one model on the validation sets of a cohort."""

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
            self.settle(assignment, Status.FAILED, outcome.message[:500] or "no reason given")
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
            name: _weighted_mean([(a.metrics[name], a.samples) for a in answers if name in a.metrics]) for name in names
        }


def _too_late(assignment: OpenAssignment) -> PreconditionError:
    return PreconditionError(f"Round {assignment.message.round} is over; this update came too late.")


def _local_validation(summary: fleet_pb2.TrainingSummary) -> dict[str, float]:
    losses = {}
    if summary.HasField("validation_loss_before"):
        losses["validation_loss_before"] = summary.validation_loss_before
    if summary.HasField("validation_loss_after"):
        losses["validation_loss_after"] = summary.validation_loss_after
    return losses


def _report(assignment: OpenAssignment, point: int) -> ClientReport:
    accepted = assignment.status is Status.ACCEPTED
    return ClientReport(
        name=assignment.member.name,
        point=point,
        diverged=assignment.status is Status.DIVERGED,
        samples=assignment.samples if accepted else 0,
        losses=tuple(assignment.log.loss),
        step_ms=tuple(assignment.log.step_ms),
        loss_before=assignment.metrics.get("validation_loss_before"),
        loss_after=assignment.metrics.get("validation_loss_after"),
        validation_samples=assignment.member.validation_samples,
    )


def _weighted_mean(values: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in values)
    return math.fsum(value * weight for value, weight in values) / total if total else math.nan
