"""What the clients of a round are told while they train: to send what they have, or that there is more time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from fedstep.server.coordination import narrate
from fedstep.server.coordination.fleet import Member
from fedstep.server.coordination.ledger import Ledger, OpenAssignment
from fedstep.server.coordination.projection import Advice, Progress, RoundEnd, best_end, pays_to_wait, project
from fedstep.server.storage.base import NewEvent

UploadTime = Callable[[Member, int], float]
"""Seconds that an update of so many bytes is expected to be on its way from a client."""


class Steering:
    """Looks after the clients of one training phase.

    Args:
        ledger: Through which they are told.
        end: When the phase ends.
        upload_s: How long updates are on their way.
        may_end_from: From so many updates on the round ends as soon as waiting does not pay; 0: it has a deadline.

    Attributes:
        end: When it ends now.
        events: What was told to whom, and why.
    """

    def __init__(self, ledger: Ledger, end: RoundEnd, upload_s: UploadTime, may_end_from: int = 0) -> None:
        self.end = end
        self._may_end_from = may_end_from
        self.events: list[NewEvent] = []
        self._ledger = ledger
        self._upload_s = upload_s

    @property
    def least_wait_s(self) -> float:
        """Between two looks, each of which passes over all clients: a tenth of the margin that it is taken from."""
        return self.end.margin_s / 10

    def look(self, running: Sequence[OpenAssignment], accepted: int, now_s: float) -> float:
        """Tells clients what they must be told by now; answers with when to look again.

        Args:
            running: What is open.
            accepted: Updates that are there.
            now_s: Seconds since the dispatch.
        """
        look_again_s, may_put_off = math.inf, self.end.latest_s > self.end.end_s
        if self._may_end_from:
            look_again_s = now_s
            if accepted >= self._may_end_from and self._ends_now(running, accepted, now_s):
                return now_s
        for assignment in running:
            if assignment.told:
                continue
            projected = project(progress_of(assignment), self.end, self._upload_of(assignment), now_s)
            if projected.advice is Advice.STOP_AND_SEND:
                if may_put_off and self._put_off(running, accepted, now_s):
                    return now_s
                may_put_off = False
                event = narrate.told_to_send(assignment, projected.finish_s, self.end.due_s(0.0), self.end.end_s)
                self._ledger.stop_and_send(assignment, event.text)
                self._note(event)
            look_again_s = min(look_again_s, projected.look_again_s)
        return look_again_s

    def _ends_now(self, running: Sequence[OpenAssignment], accepted: int, now_s: float) -> bool:
        """Ends the round where that is best; answers whether it did."""
        if pays_to_wait(accepted, [(progress_of(a), self._upload_of(a)) for a in running], now_s):
            return False
        self.end = RoundEnd.at(now_s)
        if running:  # else all that are left go on, whatever the round does
            self._note(narrate.ended_early(running, accepted, now_s))
        return True

    def _put_off(self, running: Sequence[OpenAssignment], accepted: int, now_s: float) -> bool:
        """Puts the end off where that brings more than it costs; answers whether it did."""
        left = [a for a in running if not a.told]
        clients = [(progress_of(a), self._upload_of(a)) for a in left]
        before, end_s = self.end, best_end(self.end, accepted, clients, now_s)
        if end_s <= before.end_s:
            return False
        arrivals = [before.arrival_s(progress, upload_s, now_s) for progress, upload_s in clients]
        served = [a for a, time_s in zip(left, arrivals, strict=True) if before.end_s < time_s <= end_s]
        event = narrate.put_off(served, before.end_s, end_s)
        self.end = replace(before, end_s=end_s)
        for assignment in left:
            self._ledger.extend(assignment, max(end_s, assignment.deadline_s), event.text)
        self._note(event)
        return True

    def _note(self, event: NewEvent) -> None:
        self.events.append(replace(event, happened_at=self._ledger.clock.now()))

    def _upload_of(self, assignment: OpenAssignment) -> float:
        return 0.0 if assignment.message.report_only else self._upload_s(assignment.member, assignment.update_bytes)


def progress_of(assignment: OpenAssignment) -> Progress:
    """How far a client has come with its training."""
    reported_s = assignment.reported_at - assignment.sent_at
    return Progress.of(assignment.plan.steps, assignment.log.step_ms, reported_s)
