"""Buffered rounds of one arm: who is asked, and when a round is over."""

import math
from collections import Counter
from dataclasses import replace

from fedstep.common.spec import StudySpec
from fedstep.server.coordination import narrate
from fedstep.server.coordination.buffer import Buffer
from fedstep.server.coordination.cohorts import Cohorts
from fedstep.server.coordination.dispatch import Dispatcher
from fedstep.server.coordination.fleet import Fleet
from fedstep.server.coordination.intake import Intake
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.outcome import StoppedError
from fedstep.server.coordination.run import Run
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.trained import Trained
from fedstep.server.coordination.under_way import UnderWay
from fedstep.server.tuning.base import Arm, Cost


class BufferedArm:
    """Keeps as many clients at work as there are places, always with the arm's newest model.

    Args:
        spec: The study.
        arm: How to train.
        run: The newest model, which is on the shelf.
        cohorts: Choose the clients.
        dispatcher: Writes their assignments.
        ledger: Where these are opened.
        fleet: Who is there.
        shelf: Where models are fetched.
        intake: The arm's mean.
    """

    def __init__(
        self,
        spec: StudySpec,
        arm: Arm,
        run: Run,
        *,
        cohorts: Cohorts,
        dispatcher: Dispatcher,
        ledger: Ledger,
        fleet: Fleet,
        shelf: Shelf,
        intake: Intake,
    ) -> None:
        intake.round = run.rounds
        self.buffer = Buffer(ledger, shelf, intake, spec.round.max_staleness, self._refill)
        self._spec = spec
        self._arm = arm
        self._run = run
        self._cohorts = cohorts
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._refills = 0
        self._attempt = 1
        self._times: Counter[str] = Counter()  # that each client was sent the newest model
        self._forget = fleet.when_joined(lambda member: self.buffer.refill_soon())

    async def train(self, attempt: int, last: bool) -> Trained:
        """One attempt to fill a buffer. What is in it stays there where it was not enough.

        Args:
            attempt: The round's attempt.
            last: Whether the arm trains no more: then what is still under way is called off.

        Raises:
            UnavailableError: Too few clients came.
            StoppedError: The study was over before.
        """
        buffer = self.buffer
        if not await self._cohorts.wait(self._run, self._arm, under_way=bool(buffer.open)):
            raise StoppedError("the study was over before the round began")
        began_s = self._ledger.clock.monotonic()
        self._attempt = attempt
        self._cohorts.count_draw(self._run, self._arm, attempt)
        places = self._cohorts.places(self._run, self._arm)
        wanted = self._spec.round.buffer_size or self._cohorts.wanted(self._run, self._arm) or places
        quorum = max(1, math.ceil(self._spec.round.quorum * wanted))
        await buffer.fill(wanted, self._cohorts.deadline_s(self._run), places)
        trained = buffer.trained(attempt, quorum)
        if len(trained.accepted) < quorum:
            buffer.go_on(began_s)
            return trained
        if last:
            reason = "its trial has all its updates"
            events = narrate.dismissed(buffer.call_off(reason), reason, self._run.rounds)
            trained = replace(buffer.trained(attempt, quorum), events=events)
        buffer.close()
        return trained

    def under_way(self) -> UnderWay:
        """How its buffer stands."""
        return self.buffer.under_way(self._run.trial, self._attempt)

    def went_on(self, run: Run) -> None:
        """The next model is on the shelf."""
        self._run = run
        self._refills = 0
        self._times.clear()
        self.buffer.next_round()

    def drain_cost(self) -> Cost:
        """What was sent and what came since it was last asked."""
        return self.buffer.drain_cost()

    def end(self, reason: str) -> None:
        """The arm trains no more."""
        self._forget()
        self.buffer.call_off(reason)

    def _refill(self) -> None:
        """Gives every free place to a client, as long as there are any."""
        run, arm = self._run, self._arm
        free = self._cohorts.places(run, arm) - len(self.buffer.open)
        if free <= 0:
            return
        self._refills += 1
        names = self._cohorts.choose(run, arm, free, self._refills, self.buffer.failed)
        deadlines_s = self._cohorts.deadline_s(run) + self._spec.evaluation.deadline.total_seconds()
        time_left_s = (self._spec.round.max_staleness + 1) * deadlines_s
        for member in self._cohorts.members(names):
            self._times[member.name] += 1
            turn = self._times[member.name]
            self.buffer.begin(
                self._dispatcher.trainings(self.buffer, time_left_s, run, arm, [member], turn, fresh=True)
            )
