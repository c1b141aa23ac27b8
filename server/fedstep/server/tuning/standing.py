"""How good a step-wise training has been, so that what is lost little by little is noticed."""

from dataclasses import dataclass, replace
from typing import Self

from fedstep.server.tuning.lineage import Line

_STILL = 0.1
"""A model that has lost less than this part of what training had gained is as good as the best one, and newer."""


@dataclass(frozen=True)
class Standing:
    """The best that there has been, by the study's objective, and where the training is now.

    Each generation is measured by other clients, so these are values to be suspicious by, not to decide by.

    Attributes:
        first: Of the initial model, or of what the first generation started from. Greater is better here, whatever the
            objective's direction.
        best: The greatest after a generation.
        now: After the latest.
        line: The latest that was about as good as the best; None before there is one.
        returns: How often it was gone back to.
    """

    first: float | None = None
    best: float | None = None
    now: float | None = None
    line: Line | None = None
    returns: int = 0

    def after(self, line: Line, start: float | None, end: float | None) -> Self:
        """With one more generation; a value of None tells nothing."""
        if end is None:
            return self
        first = start if self.first is None else self.first
        best = end if self.best is None else max(self.best, end)
        gone = replace(self, first=first, best=best, now=end)
        return replace(gone, line=line, returns=0) if self.line is None or gone.lost < _STILL else gone

    @property
    def lost(self) -> float:
        """The part of what training had gained at its best that is not there any more; 0 while nothing is gained."""
        return 0.0 if self.best is None or self.now is None else self.lost_between(self.best, self.now)

    def lost_between(self, best: float, now: float) -> float:
        """The same of two values on the same clients."""
        if self.first is None or best <= self.first:
            return 0.0
        return (best - now) / (best - self.first)
