"""What the generations of a step-wise training remember: how good it has been, and what was tried."""

from dataclasses import dataclass, field, replace
from typing import Self

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.tuning.lineage import Line
from fedstep.server.tuning.proposers import Attempt
from fedstep.server.tuning.steps import StepSummary

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


@dataclass(frozen=True)
class Pace:
    """What the generations remember.

    Attributes:
        rho: Width of the trust region.
        began_with: The configuration of the first generation.
        generation: From 1; 0 before the first. Also the number of its evaluation cohort.
        gain: Smoothed relative gain of a generation; None before the first.
        forked: The last generation with a fork.
        failures: Generations in a row in which every leg failed: they may have cost nothing.
        rewinds: Generations in a row that were gone back on because the loss rose.
        history: What the challengers were worth.
        steps: What the clients' steps told of the incumbent's last leg.
        settled_from: Part of the budget that was spent when settling began; None before.
        initial: The loss of the initial model; where that was not measured, of what the first generation started from.
            None before.
        standing: How good the line has been.
        moved: Whether the model was judged better than the initial one, once.
        restarts: How often training was begun anew.
    """

    rho: float
    began_with: Hyperparameters
    generation: int = 0
    gain: float | None = None
    forked: int = 0
    failures: int = 0
    rewinds: int = 0
    history: tuple[Attempt, ...] = ()
    steps: StepSummary = field(default_factory=StepSummary)
    settled_from: float | None = None
    initial: float | None = None
    standing: Standing = field(default_factory=Standing)
    moved: bool = False
    restarts: int = 0
