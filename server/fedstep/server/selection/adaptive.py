"""The deadline that finds its own length: towards less wall-clock time per unit of validation loss gained."""

import numpy as np

from fedstep.server.selection.base import Candidates, RoundSeen
from fedstep.server.selection.pace import quantile_s

ROUNDS = 10
"""Between two changes (algorithm.md)."""

STEP = 1.1
"""Each of them, one way or the other."""

_MOST = 8.0
"""A deadline so many times longer than where it started, or shorter, is as far as it goes."""

LEAST_S = 1.0
"""Below this the ways of messages and the scheduling of processes decide who is in time."""

_ENOUGH = 10
"""Clients that must have been measured before their times say what the fleet's are; of fewer, half."""


class AdaptiveDeadline:
    """A factor on the quantile of the predicted times, so that it holds for any hyper-parameters.

    It starts at 1. Every ten rounds it goes on by a tenth, and turns back where the last ten rounds paid more seconds
    for what they gained than the ten before them. Rounds count whose model was measured, with the time of the
    unmeasured ones before them.

    Args:
        quantile: Of the times within which the clients are done.
        on_time: With this probability.
        adapts: Whether it changes at all.
    """

    def __init__(self, quantile: float, on_time: float, adapts: bool) -> None:
        self.factor = 1.0
        self._quantile = quantile
        self._on_time = on_time
        self._adapts = adapts
        self._up = True
        self._rounds = 0
        self._seconds = 0.0
        self._gain = 0.0
        self._price: float | None = None
        self._last: dict[int, float] = {}
        self._unmeasured_s: dict[int, float] = {}

    def can_tell(self, candidates: Candidates) -> bool:
        """Whether enough of them have been measured."""
        return int(np.count_nonzero(candidates.measured)) >= min(_ENOUGH, len(candidates) / 2)

    def seconds(self, candidates: Candidates, longest_s: float) -> float:
        """The deadline of a round; the longest while too few have been measured.

        Args:
            candidates: The round's.
            longest_s: The study's own deadline.
        """
        if not self.can_tell(candidates):
            return longest_s
        known = candidates.measured
        times = quantile_s(candidates.log_time[known], candidates.log_time_sd[known], self._on_time)
        # No mean of a fast client's time and a slow one's, which is nobody's.
        quantile = float(np.quantile(times, self._quantile, method="inverted_cdf"))
        return min(max(quantile * self.factor, LEAST_S), longest_s)

    def observe(self, seen: RoundSeen) -> None:
        """Takes in a round."""
        if not self._adapts:
            return
        self._rounds += 1
        spent = self._unmeasured_s.pop(seen.trial, 0.0) + seen.seconds
        if seen.loss is None or not np.isfinite(seen.loss):
            self._unmeasured_s[seen.trial] = spent
        else:
            if seen.trial in self._last:
                self._seconds += spent
                self._gain += self._last[seen.trial] - seen.loss
            self._last[seen.trial] = seen.loss
        if self._rounds >= ROUNDS and self._seconds:
            self._change()

    def _change(self) -> None:
        price = self._seconds / self._gain if self._gain > 0 else np.inf
        if self._price is not None and price > self._price:
            self._up = not self._up
        self.factor *= STEP if self._up else 1 / STEP
        self.factor = min(max(self.factor, 1 / _MOST), _MOST)
        self._price, self._rounds, self._seconds, self._gain = price, 0, 0.0, 0.0
