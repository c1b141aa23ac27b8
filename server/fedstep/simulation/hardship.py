"""What holds simulated clients up, beside their speed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedstep.common.errors import InvalidInputError
from fedstep.common.handicap import UNHINDERED, Handicap
from fedstep.common.pauses import NEVER, Pauses

_ABSENCES = 16
"""Of a client, before they come again. The share of its time that it is away is exact in every such cycle."""


@dataclass(frozen=True)
class Hardship:
    """Who among the clients is a poor machine, and when they are away. Real clients are made such by the same options.

    Attributes:
        slow: What the slow ones suffer from; each has its stalls at times of its own.
        slow_share: How many of the clients are slow, from 0 to 1; which ones is drawn.
        away_share: The part of its time that each client is away, from 0 to below 1; at any moment about so many are.
        away_for_s: Mean length of an absence. Absences and the times between them are drawn from exponential
            distributions.
        trace: When clients are away, by name, instead of what is drawn (see `fedstep.common.trace`).
    """

    slow: Handicap = UNHINDERED
    slow_share: float = 1.0
    away_share: float = 0.0
    away_for_s: float = 600.0
    trace: Mapping[str, Pauses] = field(default_factory=dict)

    def draw(self, names: Sequence[str], seed: int) -> list[Handicap]:
        """Each client's handicap, the same for the same seed.

        Raises:
            InvalidInputError: A share is none, or the trace names a client that there is not.
        """
        if not (0 <= self.slow_share <= 1 and 0 <= self.away_share < 1 and self.away_for_s > 0):
            raise InvalidInputError(
                f"A share of {self.slow_share:g} slow clients, of {self.away_share:g} away for {self.away_for_s:g} s, "
                "is none: give shares from 0 to 1, the second below 1, and more than 0 s."
            )
        for name in self.trace:
            if name not in names:
                raise InvalidInputError(
                    f"The trace names {name}, and the {len(names)} clients are {names[0]} to {names[-1]}: rename it."
                )
        rng = np.random.default_rng([seed, len(names), 1])
        slow = set(rng.permutation(len(names))[: round(self.slow_share * len(names))].tolist())
        drawn = []
        for number, name in enumerate(names):
            phase, absences = float(rng.random()), self._absences(rng)
            handicap = self._slowed(phase) if number in slow else UNHINDERED
            drawn.append(replace(handicap, absences=self.trace.get(name, NEVER) if self.trace else absences))
        return drawn

    def _slowed(self, phase: float) -> Handicap:
        stalls = self.slow.stalls
        if stalls == NEVER:
            return self.slow
        return replace(self.slow, stalls=replace(stalls, phase_s=phase * stalls.repeat_s))

    def _absences(self, rng: np.random.Generator) -> Pauses:
        """Times of being there and away in turn, scaled to their means over the cycle, which begins anywhere."""
        if not self.away_share:
            return NEVER
        away, there = (lengths / lengths.mean() for lengths in rng.exponential(size=(2, _ABSENCES)))
        away = away * self.away_for_s
        there = there * self.away_for_s * (1 - self.away_share) / self.away_share
        ends = np.cumsum(there + away)
        periods = zip((ends - away).tolist(), ends.tolist(), strict=True)
        return Pauses(tuple(periods), float(ends[-1]), float(rng.random() * ends[-1]))


EASE = Hardship()
"""Nobody is held up."""
