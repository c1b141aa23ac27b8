"""What a study has spent, and whether its budget allows another round."""

import math
from collections import deque
from dataclasses import dataclass

from fedstep.common.clock import Clock
from fedstep.server.storage.base import (
    Spent,
    StudyRecord,
)
from fedstep.server.storage.costs import ArmCost
from fedstep.server.tuning.base import Cost

_MARKS = 200
"""Ends of rounds that the pace of a study is taken from."""


@dataclass(frozen=True)
class Mark:
    """What was spent when a round ended.

    Attributes:
        at_s: Monotonic seconds.
        spent: By then.
    """

    at_s: float
    spent: Spent


class Account:
    """Adds up what a study costs. Its time runs from here on.

    Args:
        study: The study as the store has it, with what was spent before.
        clock: For the time since then.

    Attributes:
        spent: So far, what is not committed yet included.
        stopped: Whether nothing counts any more.
    """

    def __init__(self, study: StudyRecord, clock: Clock) -> None:
        self.spent = study.spent
        self._budget = study.spec.budget
        self._seconds = study.seconds_spent
        self._clock = clock
        self._counted_at = clock.monotonic()
        self.stopped = False
        # Of earlier lives of the coordinator their mean pace.
        before = [Mark(self._counted_at - self._seconds, Spent()), Mark(self._counted_at, self.spent)]
        self._before = before if self.spent.rounds else []
        self._marks: deque[Mark] = deque(maxlen=_MARKS)

    @property
    def marks(self) -> list[Mark]:
        """What was spent at the ends of its latest rounds."""
        return [*self._marks] or self._before

    @property
    def seconds(self) -> float:
        """The time that counts against its budget."""
        return self._seconds + self._since_counted()

    @property
    def time_left_s(self) -> float:
        """Of its budget's time; below 0 once that is overrun, infinite where it has none."""
        time = self._budget.time
        return math.inf if time is None else time.total_seconds() - self.seconds

    @property
    def used_up(self) -> bool:
        """Whether no round may begin any more."""
        budget, spent = self._budget, self.spent
        return (
            self.used_up_for_measuring
            or 0 < budget.rounds <= spent.rounds
            or 0 < budget.client_rounds <= spent.client_rounds
        )

    @property
    def used_up_for_measuring(self) -> bool:
        """Whether not even a measurement may begin, which costs time and bytes, but no rounds."""
        return self.time_left_s <= 0 or 0 < self._budget.payload_bytes <= self.spent.payload_bytes

    def spend(self, cost: Cost) -> None:
        """Adds what was spent; whatever it was spent on is committed with it, see `counted`."""
        now = self._clock.monotonic()
        if not self._marks and cost.rounds:
            self._marks.append(Mark(now - cost.seconds, self.spent))
        self.spent += counted(cost)
        if cost.rounds:
            self._marks.append(Mark(now, self.spent))

    def count_seconds(self) -> float:
        """Counts the time since it was last counted; answers with it, for the store."""
        passed, self._counted_at = self._since_counted(), self._clock.monotonic()
        self._seconds += passed
        return passed

    def stop(self) -> None:
        """No time passes for it from here on; what has not been counted yet is lost."""
        self.stopped = True

    def _since_counted(self) -> float:
        return 0.0 if self.stopped else self._clock.monotonic() - self._counted_at


def counted(cost: Cost) -> Spent:
    """A cost as the store adds it up; time is counted by the clock."""
    return Spent(cost.rounds, cost.client_rounds, cost.payload_bytes)


def cost_of_arm(trial: int, cost: Cost) -> ArmCost:
    """A cost as the store adds it up for the arm that it was spent on."""
    return ArmCost(trial, cost.rounds, cost.client_rounds, cost.payload_bytes, cost.update_bytes, cost.seconds)
