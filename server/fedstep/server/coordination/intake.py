"""Updates on their way into the mean of an arm's next model: checked, weighed, one at a time."""

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from fedstep.common.durations import seconds_of
from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.checks import check_update
from fedstep.server.coordination.executors import Executor
from fedstep.server.coordination.ledger import OpenAssignment, Owner, Status
from fedstep.v1 import fleet_pb2

ABSURD = 1e100
"""Of a loss or a metric: no model has one, and sums over clients stay finite below it."""

MAX_STALENESS = 3
"""A late update of a model that is more rounds old is dropped."""

_REST_S = 0.5
"""How long a round that is over waits for an update whose arithmetic has not begun."""


@dataclass(frozen=True)
class TakenLate:
    """A late update that went into a mean.

    Attributes:
        client: Whose it is.
        trial: The arm it was made for, and whose model it went into.
        made_in: The round whose model it was computed from.
        taken_in: The round whose mean it went into.
        part: Which part of the local steps that were due it was computed with, in (0, 1].
    """

    client: str
    trial: int
    made_in: int
    taken_in: int
    part: float = 1.0

    @property
    def staleness(self) -> int:
        """Rounds between the two."""
        return self.taken_in - self.made_in

    @property
    def discount(self) -> float:
        """What its weight was multiplied by."""
        return discount(self.staleness)


def discount(staleness: int) -> float:
    """What the weight of an update of an older model is multiplied by: 1 / √(1 + s) (Nguyen et al. 2022, FedBuff)."""
    return 1 / math.sqrt(1 + staleness)


class Intake:
    """The mean that an arm's next model is made of. It outlives the arm's rounds: what comes late goes into the next.

    Args:
        aggregator: The mean.
        compute: Where the arithmetic runs; its calls take turns.
        max_update_ratio: An update of a norm this many times larger than its model's is refused.
        max_staleness: An update of a model that is more rounds old is too late.
        damped: Whether the mean is divided by what the updates would weigh were none of them stale, so that a mean of
            stale ones is a smaller step (Nguyen et al. 2022 divide by K); else by what they weigh.

    Attributes:
        round: Whose mean it is now.
        taken_late: Late updates since they were last asked for.
        turn: Held while an update is taken in.
        taking: The assignment of that update.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        compute: Executor,
        max_update_ratio: float,
        max_staleness: int = MAX_STALENESS,
        damped: bool = False,
    ) -> None:
        self.round = 0
        self.taken_late: list[TakenLate] = []
        self.turn = asyncio.Lock()
        self.taking: OpenAssignment | None = None
        self._aggregator = aggregator
        self._compute = compute
        self._max_update_ratio = max_update_ratio
        self._max_staleness = max_staleness
        self._damped = damped
        self._weight = self._discounted = 0.0
        self._adding = threading.Lock()
        self._added: OpenAssignment | None = None
        self._added_at = 0

    async def take(
        self,
        assignment: OpenAssignment,
        update: torch.Tensor,
        summary: fleet_pb2.TrainingSummary,
        over: Callable[[], bool],
        closed: Callable[[], bool],
    ) -> None:
        """Checks an update and adds it; the assignment has what the client says of it then, and is still open.

        Args:
            assignment: What it was made for.
            update: float32 [elements].
            summary: What the client says of it.
            over: Whether it is too late to begin.
            closed: Whether it is too late to be added; asked in the executor's thread, just before.

        Raises:
            InvalidInputError: It is refused: not finite, absurdly large, or of no samples.
            PreconditionError: It is too late, or its model too old.
        """
        async with self.turn:
            if assignment.status is not Status.OPEN or over():
                raise too_late(assignment)
            self.taking = assignment
            try:
                weight = _weight(assignment, summary)
                await self._compute.run(self._check_and_add, assignment, update, weight, summary.steps, closed)
            finally:
                self.taking = None
            assignment.samples = summary.samples
            assignment.train_s = seconds_of(summary.train_time)
            assignment.metrics = {"loss": summary.loss, "steps": float(summary.steps)} | _local_validation(summary)
            if (part := assignment.plan.part(summary.steps)) < 1:
                assignment.metrics["part"] = part
            if (loss_rms := assignment.log.root_mean_square_loss()) is not None:
                assignment.metrics["loss_rms"] = loss_rms
            if staleness := self._added_at - assignment.message.round:
                assignment.metrics["staleness"] = float(staleness)
            assignment.payload_bytes = assignment.update_bytes

    def _check_and_add(
        self, assignment: OpenAssignment, update: torch.Tensor, weight: float, steps: int, closed: Callable[[], bool]
    ) -> None:
        check_update(update, assignment.weights_norm, self._max_update_ratio)
        work, made_in = assignment.plan.work(steps), assignment.message.round
        with self._adding:
            staleness = self.round - made_in
            if closed() or staleness > self._max_staleness:
                raise too_late(assignment)
            discounted = weight * discount(staleness)
            self._aggregator.add(update, discounted, work)
            self._weight += weight
            self._discounted += discounted
            self._added, self._added_at = assignment, self.round
            if staleness:
                part = assignment.plan.part(steps)
                taken = TakenLate(assignment.member.name, assignment.message.trial, made_in, self.round, part)
                self.taken_late.append(taken)

    async def come_to_rest(self, owner: Owner, mark: Callable[[], None]) -> None:
        """Ends a round: nothing is added any more when it returns.

        What has reached the sum is waited for, and for a moment what waits for its turn in a busy executor.

        Args:
            owner: Whose round it is. It begins nothing more by itself.
            mark: Has `closed` of `take` say that it is too late.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S), self.turn:
                mark()
                return
        if await self._close(mark):
            async with self.turn:  # nothing of it is left to do that takes time
                return
        if self.taking is not None and self.taking.owner is owner:
            self.taking = None

    async def _close(self, mark: Callable[[], None]) -> bool:
        """Calls `mark` while nothing is being added; answers whether what is being taken in has been added."""

        def close() -> bool:
            with self._adding:  # for one pass over memory at most
                mark()
                return self._added is not None and self._added is self.taking

        return await asyncio.to_thread(close)

    def finish(self) -> torch.Tensor:
        """The combined update; from now on the mean is the next round's. Blocks: for the executor.

        Raises:
            ValueError: There was no update.
        """
        with self._adding:
            self.round += 1
            mean = self._aggregator.finish()
            if self._damped and self._discounted != self._weight:
                mean.mul_(self._discounted / self._weight)
            self._weight = self._discounted = 0.0
            return mean

    def start_again(self, aggregator: Aggregator, round: int) -> None:
        """Forgets what was taken in."""
        with self._adding:
            self._aggregator, self.round, self.taken_late = aggregator, round, []
            self._weight = self._discounted = 0.0

    def drain_late(self) -> list[TakenLate]:
        """The late updates since it was last asked."""
        with self._adding:
            taken, self.taken_late = self.taken_late, []
        return taken


def too_late(assignment: OpenAssignment) -> PreconditionError:
    """What a client hears whose update nobody takes any more."""
    return PreconditionError(f"Round {assignment.message.round} is over; this update came too late.")


def _weight(assignment: OpenAssignment, summary: fleet_pb2.TrainingSummary) -> float:
    declared = assignment.member.train_samples
    if not 0 < summary.samples <= declared:
        raise InvalidInputError(
            f"{assignment.member.name} claims {summary.samples} training samples where it announced {declared}."
        )
    if not abs(summary.loss) < ABSURD:
        raise InvalidInputError(f"{assignment.member.name} claims a training loss of {summary.loss}.")
    return float(summary.samples)


def _local_validation(summary: fleet_pb2.TrainingSummary) -> dict[str, float]:
    losses = {}
    if summary.HasField("validation_loss_before"):
        losses["validation_loss_before"] = summary.validation_loss_before
    if summary.HasField("validation_loss_after"):
        losses["validation_loss_after"] = summary.validation_loss_after
    return losses
