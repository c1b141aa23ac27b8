"""What a study has spent, and whether its budget allows another round."""

from fedstep.common.clock import Clock
from fedstep.server.storage.base import (
    Spent,
    StudyRecord,
)
from fedstep.server.storage.costs import ArmCost
from fedstep.server.tuning.base import Cost


class Account:
    """Adds up what a study costs. Its time runs from here on.

    Args:
        study: The study as the store has it, with what was spent before.
        clock: For the time since then.

    Attributes:
        spent: So far, what is not committed yet included.
    """

    def __init__(self, study: StudyRecord, clock: Clock) -> None:
        self.spent = study.spent
        self._budget = study.spec.budget
        self._seconds = study.seconds_spent
        self._clock = clock
        self._counted_at = clock.monotonic()

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
        budget, spent = self._budget, self.spent
        seconds = self._seconds + self._clock.monotonic() - self._counted_at
        return (
            budget.time is not None and seconds >= budget.time.total_seconds()
        ) or 0 < budget.payload_bytes <= spent.payload_bytes

    def spend(self, cost: Cost) -> None:
        """Adds what was spent; whatever it was spent on is committed with it, see `counted`."""
        self.spent += counted(cost)

    def count_seconds(self) -> float:
        """Counts the time since it was last counted; answers with it, for the store."""
        now = self._clock.monotonic()
        passed, self._counted_at = now - self._counted_at, now
        self._seconds += passed
        return passed


def counted(cost: Cost) -> Spent:
    """A cost as the store adds it up; time is counted by the clock."""
    return Spent(cost.rounds, cost.client_rounds, cost.payload_bytes)


def cost_of_arm(trial: int, cost: Cost) -> ArmCost:
    """A cost as the store adds it up for the arm that it was spent on."""
    return ArmCost(trial, cost.rounds, cost.client_rounds, cost.payload_bytes, cost.update_bytes, cost.seconds)
