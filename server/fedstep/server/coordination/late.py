"""Work of an arm's earlier rounds that is still out when they are over: its updates are taken once, at a discount."""

from collections.abc import Collection, Iterable

import torch

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.coordination import narrate
from fedstep.server.coordination.intake import MAX_STALENESS, Intake
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.storage.base import NewEvent
from fedstep.v1 import fleet_pb2


class LateUpdates:
    """Owns the late work of one arm (see `ledger.Owner`), and takes what comes of it into the arm's next mean.

    What holds: an update goes into the mean of the arm that it was made for and of no other, once; its weight is
    divided by √(1 + s), where s counts the rounds since the model it was computed from, and past `MAX_STALENESS` it is
    dropped; its client has no other work meanwhile. Nothing is kept of an update but the mean that it is in.

    Args:
        ledger: Where the work is open.
        intake: The arm's.
    """

    def __init__(self, ledger: Ledger, intake: Intake) -> None:
        self.intake = intake
        self._ledger = ledger
        self._open: dict[str, OpenAssignment] = {}
        self._events: list[NewEvent] = []

    def take_over(self, assignments: Iterable[OpenAssignment], reason: str) -> None:
        """Takes over what a round leaves open. Every client sends what it has now: it is wanted again.

        Args:
            assignments: Of one round that met its quorum.
            reason: Why they are late.
        """
        for assignment in assignments:
            self._hand_over(assignment, Status.LATE, reason)
            if not assignment.told:
                self._ledger.stop_and_send(assignment, reason)

    def wait_for(self, assignments: Iterable[OpenAssignment], reason: str) -> None:
        """Takes over what a round leaves open, and has these clients do all that they were asked for.

        Args:
            assignments: As in `take_over`.
            reason: As there.
        """
        for assignment in assignments:
            self._hand_over(assignment, Status.GOES_ON, reason)

    def _hand_over(self, assignment: OpenAssignment, left_as: Status, reason: str) -> None:
        self._ledger.hand_over(assignment, self, left_as, f"{reason}; what it sends yet is taken, at a discount")
        self._open[assignment.ref.assignment_id] = assignment

    def begin_round(self, round: int, last: bool = False) -> None:
        """A round of the arm begins: what would be too stale for it is called off, and what the next one could not take
        is sent as it is.

        Args:
            round: Its number.
            last: There is no next one.
        """
        self.intake.round = round
        for assignment in list(self._open.values()):
            staleness = round - assignment.message.round
            if staleness > MAX_STALENESS:
                self._end(assignment, f"its model is more than {MAX_STALENESS} rounds old")
            elif (last or staleness == MAX_STALENESS) and not assignment.told:
                why = "its trial is in its last round" if last else f"its model is {staleness} rounds old"
                self._ledger.stop_and_send(assignment, f"{why}: what it has is still taken")

    def drain_events(self) -> list[NewEvent]:
        """What became of it that no round tells, since this was last asked."""
        events, self._events = self._events, []
        return events

    def call_off(self, reason: str) -> None:
        """Ends all of it: the arm is over, or its clients are needed."""
        for assignment in list(self._open.values()):
            self._end(assignment, reason)

    def free(self, names: Collection[str], reason: str) -> None:
        """Ends what these clients do of it."""
        for assignment in [a for a in self._open.values() if a.member.name in names]:
            self._end(assignment, reason)

    def _end(self, assignment: OpenAssignment, reason: str) -> None:
        if assignment is not self.intake.taking:  # that one is in the mean already, or about to be
            del self._open[assignment.ref.assignment_id]
            status = Status.ABANDONED if assignment.standing is Status.GOES_ON else Status.LATE
            self._ledger.dismiss(assignment, status, reason)

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        """Takes in a late update.

        Raises:
            InvalidInputError: It is refused, as one in time would be.
            PreconditionError: Its model is too old.
        """
        try:
            await self.intake.take(assignment, update, summary, lambda: False, lambda: False)
        except InvalidInputError as error:
            self.settle(assignment, Status.REFUSED, error.message)
            raise
        except PreconditionError as error:
            self.settle(assignment, Status.LATE, error.message)
            raise
        self.settle(assignment, Status.ACCEPTED)

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        """Nothing will come: the client is free again."""
        self.settle(assignment, Status.LATE, outcome.message[:500])

    def settle(self, assignment: OpenAssignment, status: Status, message: str = "") -> None:
        """Ends one assignment."""
        if assignment is not self.intake.taking:
            self._open.pop(assignment.ref.assignment_id, None)
            self._ledger.close(assignment, status, message)
            if status is Status.LOST:
                self._events.append(narrate.late_work_lost(assignment, message))
