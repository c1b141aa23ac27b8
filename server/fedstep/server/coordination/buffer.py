"""The work under way of an arm that trains in buffered rounds, and the buffer that its updates fill.

Nguyen et al. 2022, Federated Learning with Buffered Asynchronous Aggregation (arXiv 2106.06639).
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.aggregation.checks import DivergedUpdateError
from fedstep.server.coordination.intake import Intake
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.outcome import sent_to
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.trained import FAULTS, Trained, failure
from fedstep.server.coordination.under_way import Kind, UnderWay
from fedstep.server.tuning.base import Cost
from fedstep.v1 import fleet_pb2

_LOOK_AGAIN_S = 5.0
"""How often a place is offered again for which there was no client."""


class Buffer:
    """Owns the work of one arm (see `ledger.Owner`) through all its rounds.

    What holds: an update goes into one mean of the arm that it was made for, once, whatever round it was begun in; no
    update is added from the moment a buffer is full, or its time is up, until the next model is there: those that come
    meanwhile wait for the next buffer. While a model is measured the next buffer fills. If it is full before that is
    over, it takes what is under way still, and nobody is given new work.
    A client that let the buffer down is not asked again before the next one.

    Args:
        ledger: Where the work is open.
        shelf: Where the models are fetched that the work begins with.
        intake: The arm's mean.
        max_staleness: Work on a model that is more rounds old is called off.
        refill: Gives out the places that are free.

    Attributes:
        open: What is under way.
        failed: Clients that brought nothing since the buffer began.
        taken: Updates that are in it.
    """

    def __init__(
        self, ledger: Ledger, shelf: Shelf, intake: Intake, max_staleness: int, refill: Callable[[], None]
    ) -> None:
        self.intake = intake
        self.open: dict[OpenAssignment, None] = {}
        self.failed: set[str] = set()
        self.taken = 0
        self._ran_away: list[OpenAssignment] = []
        self._ledger = ledger
        self._shelf = shelf
        self._max_staleness = max_staleness
        self._refill = refill
        self._refilling: asyncio.Handle | None = None
        self._wanted = 0
        self._began_at = self._deadline_s = 0.0
        self._filling = False
        self._taking = asyncio.Event()
        self._taking.set()
        self._shut = False
        self._over = False
        self._changed = asyncio.Event()
        self._ended: list[OpenAssignment] = []
        self._not_fetched: set[OpenAssignment] = set()
        self._cost = Cost()

    # what goes out ------------------------------------------------------------------------------------------------

    def begin(self, assignments: Sequence[OpenAssignment]) -> None:
        """Sends work out. Its model stays on the shelf until it is there."""
        for assignment in assignments:
            self.open[assignment] = None
            model = self._shelf.get(assignment.message.model_sha256)
            self._shelf.share(model.sha256, model.manifest)
            self._not_fetched.add(assignment)
            self._cost += sent_to(1, model.manifest)
            self._ledger.open(assignment)

    def refill_soon(self) -> None:
        """Gives out the places that are free, those that became free at the same time together."""
        if self._refilling is None and self._gives_out:
            self._refilling = asyncio.get_running_loop().call_soon(self._refill_now)

    def _refill_now(self) -> None:
        self._refilling = None
        if self._gives_out:
            self._refill()

    @property
    def _gives_out(self) -> bool:
        return self._taking.is_set() and not (self._over or self._full)

    # a round ------------------------------------------------------------------------------------------------------

    async def fill(self, wanted: int, deadline_s: float, most_failed: int) -> None:
        """Waits for the end of a buffer. From then on nothing is added, until the next one begins.

        Args:
            wanted: Updates that end it.
            deadline_s: It ends after so many seconds, by the coordinator's own timer.
            most_failed: It ends when so many clients have brought nothing: others would do no better.
        """
        self._wanted, self._filling, self._over = wanted, True, False
        self._began_at, self._deadline_s = self._ledger.clock.monotonic(), deadline_s
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while not self._full and len(self.failed) < most_failed:
                    self._changed.clear()
                    self._refill()
                    if not self.open:
                        break
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            await self._changed.wait()
        self._filling = False
        self._taking.clear()
        await self.intake.come_to_rest(self, self._shut_now)

    def under_way(self, trial: int, attempt: int) -> UnderWay:
        """How it stands.

        Args:
            trial: The arm.
            attempt: At this round.
        """
        return UnderWay(
            Kind.BUFFER,
            trial,
            self.intake.round,
            attempt,
            self._wanted,
            self.taken,
            self._began_at,
            self._deadline_s,
            [*self.open],
        )

    @property
    def _full(self) -> bool:
        return 0 < self._wanted <= self.taken

    def _shut_now(self) -> None:
        self._shut = True

    def trained(self, attempt: int, quorum: int) -> Trained:
        """What has ended since the last buffer was closed, in the order of the ends."""
        cohort = tuple(dict.fromkeys(assignment.member.name for assignment in self._ended))
        return Trained([*self._ended], cohort, attempt, quorum, [*self._ran_away])

    def close(self) -> None:
        """What is in the buffer goes into the next model; what ends from now on belongs to the next buffer."""
        self._ended.clear()
        self._ran_away.clear()

    def drain_cost(self) -> Cost:
        """What it cost since it was last asked."""
        cost, self._cost = self._cost, Cost()
        return cost

    def go_on(self, older_than_s: float) -> None:
        """The buffer had too few updates and is filled further. What has taken its time for nothing gives its place up.

        Args:
            older_than_s: Work that was given out before this, by the ledger's clock, is called off.
        """
        for assignment in [a for a in self.open if a.sent_at <= older_than_s]:
            self._dismiss(assignment, Status.LATE, "its update did not come within the deadline of a round")
        self._begin_buffer()

    def next_round(self) -> None:
        """The mean was taken and the next model is there: the next buffer begins.

        Work that would be too stale for it is called off; for what would be too stale for the one after, this one is
        the last chance, and its client sends what it has.
        """
        self.taken = 0
        for assignment in [*self.open]:
            staleness = self.intake.round - assignment.message.round
            if self._is_stale(assignment):
                text = f"its model is more than {self._max_staleness} rounds old"
                self._dismiss(assignment, Status.LATE, text)
            elif staleness == self._max_staleness and not assignment.told:
                why = f"its model is {staleness} rounds old: what it has is still taken"
                self._ledger.stop_and_send(assignment, why)
        for assignment in [a for a in self._not_fetched if a.log.loss]:
            self._has_model(assignment)
        self._begin_buffer()

    def _is_stale(self, assignment: OpenAssignment) -> bool:
        return self.intake.round - assignment.message.round > self._max_staleness

    def _begin_buffer(self) -> None:
        self.failed.clear()
        self._shut = False
        self._taking.set()
        self.refill_soon()

    def call_off(self, reason: str) -> list[OpenAssignment]:
        """Ends all of it; nothing is given out before the next `fill`. Answers with what was under way."""
        called_off = [*self.open]
        self._over = True
        for assignment in called_off:
            self._dismiss(assignment, Status.ABANDONED, reason)
        self._taking.set()  # nobody waits any more
        return called_off

    # what comes back ----------------------------------------------------------------------------------------------

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Takes an update into the buffer, or into the next one where this one is over.

        Raises:
            InvalidInputError: It is refused: not finite, absurdly large, or of no samples.
            PreconditionError: Its model is too old, or the arm is over.
        """
        while True:
            await self._taking.wait()
            try:
                await self.intake.take(
                    assignment, update, summary, lambda: not self._taking.is_set(), lambda: self._shut
                )
            except InvalidInputError as error:
                if isinstance(error, DivergedUpdateError):
                    self._ran_away.append(assignment)
                self.settle(assignment, Status.REFUSED, error.message)
                raise
            except PreconditionError as error:
                if assignment in self.open and not self._is_stale(assignment):
                    continue  # into the next buffer
                self.settle(assignment, Status.LATE, error.message)
                raise
            self.settle(assignment, Status.ACCEPTED)
            return

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """A client that sends no update says why."""
        self.settle(assignment, *failure(assignment, outcome))

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment; not one whose update is in the sum already or about to be: that one is accepted."""
        if assignment in self.open and assignment is not self.intake.taking:
            self._ledger.close(assignment, status, message)
            self._put_down(assignment)

    def _dismiss(self, assignment: OpenAssignment, status: Status, reason: str) -> None:
        if assignment is not self.intake.taking:
            self._ledger.dismiss(assignment, status, reason)
            self._put_down(assignment)

    def _put_down(self, assignment: OpenAssignment) -> None:
        del self.open[assignment]
        self._ended.append(assignment)
        self._has_model(assignment)
        if assignment.status is Status.ACCEPTED:
            self.taken += 1
            self._cost += Cost(payload_bytes=assignment.payload_bytes, update_bytes=assignment.payload_bytes)
            if self._full and self._filling:
                self._taking.clear()
        elif assignment.status in FAULTS:
            self.failed.add(assignment.member.name)
        self._changed.set()
        self.refill_soon()

    def _has_model(self, assignment: OpenAssignment) -> None:
        if assignment in self._not_fetched:
            self._not_fetched.remove(assignment)
            self._shelf.drop(assignment.message.model_sha256)
