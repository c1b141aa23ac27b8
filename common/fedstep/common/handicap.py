"""What makes a machine a poor one: the same description drives a real client and a simulated one."""

import math
from dataclasses import dataclass

from fedstep.common.pauses import NEVER, Pauses


@dataclass(frozen=True)
class Handicap:
    """How a machine falls short of what its hardware could do.

    Attributes:
        slowdown: A local step and a measurement take this many times as long, at least 1.
        stalls: When its work stands still, as that of a machine that swaps or is busy otherwise. It stays in touch.
        bytes_per_s: The most that models and updates move, each way.
        absences: When it cannot be reached and reaches nobody. Its work goes on, and is told when it is back.
    """

    slowdown: float = 1.0
    stalls: Pauses = NEVER
    bytes_per_s: float = math.inf
    absences: Pauses = NEVER

    @property
    def slows_work(self) -> bool:
        """Whether work takes longer than it would."""
        return self.slowdown != 1 or self.stalls != NEVER

    def worked_s(self, begin_s: float, work_s: float) -> float:
        """When work is done that begins at a time and would take so long."""
        return self.stalls.over_s(begin_s, self.slowdown * work_s)

    def moved_s(self, begin_s: float, size_bytes: int, transfer_s: float = 0.0) -> float:
        """When bytes have moved whose transfer begins at a time and would take so long."""
        return self.absences.over_s(begin_s, max(transfer_s, size_bytes / self.bytes_per_s))


UNHINDERED = Handicap()
"""A machine that does what it can."""
