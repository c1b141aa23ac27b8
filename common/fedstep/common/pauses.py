"""Times at which something stands still: a machine's work, or its network."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

_SAME_S = 1e-4
"""Times that lie this near are one: whoever sleeps until a pause ends is never told, by a rounding, that it goes on."""


@dataclass(frozen=True)
class Pauses:
    """Pauses on one clock, which begins at 0: a few, or a few again and again.

    Attributes:
        periods: When each begins and ends, in seconds, in their order and without overlaps.
        repeat_s: The length of a cycle after which they come again, at least the end of the last; infinite for never.
        phase_s: How much of the first cycle is over at 0.
    """

    periods: tuple[tuple[float, float], ...] = ()
    repeat_s: float = math.inf
    phase_s: float = 0.0

    @classmethod
    def every(cls, every_s: float, lasting_s: float) -> Self:
        """One at the end of each stretch of `every_s` seconds; `lasting_s` is shorter."""
        return cls(((every_s - lasting_s, every_s),), every_s)

    def at(self, time_s: float) -> tuple[float, float]:
        """When the pause begins and ends that goes on at a time, or the next one does; infinite for never."""
        cycles = 0.0 if math.isinf(self.repeat_s) else math.floor((time_s + self.phase_s) / self.repeat_s)
        start_s = -self.phase_s + (cycles * self.repeat_s if cycles else 0.0)
        position = bisect_right(self.periods, time_s - start_s + _SAME_S, key=lambda period: period[1])
        if position == len(self.periods):
            if not self.periods or math.isinf(self.repeat_s):
                return math.inf, math.inf
            start_s, position = start_s + self.repeat_s, 0
        begins_s, ends_s = self.periods[position]
        return start_s + begins_s, start_s + ends_s

    def over_s(self, begin_s: float, work_s: float) -> float:
        """When something is over that begins at a time, takes so long, and stands still in every pause."""
        if not self.periods:
            return begin_s + work_s
        now_s, left_s = begin_s, work_s
        if math.isfinite(self.repeat_s):  # whole cycles in one go, however many there are
            moving_s = self.repeat_s - math.fsum(ends_s - begins_s for begins_s, ends_s in self.periods)
            cycles = max(0, math.ceil(left_s / moving_s) - 1)
            now_s, left_s = now_s + cycles * self.repeat_s, left_s - cycles * moving_s
        while True:
            begins_s, ends_s = self.at(now_s)
            free_s = max(0.0, begins_s - now_s)
            if left_s <= free_s:
                return now_s + left_s
            now_s, left_s = ends_s, left_s - free_s


NEVER = Pauses()
"""No pause at all."""
