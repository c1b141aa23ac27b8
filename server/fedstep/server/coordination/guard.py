"""Notices, step by step, that a client's training diverges."""

import math
from collections import deque
from collections.abc import Sequence

from fedstep.common.spec import GuardPolicy


class LossGuard:
    """Watches the step losses of one assignment; the rule is `GuardPolicy`'s.

    A non-finite loss trips it at once. Else it compares the mean of the last `window` losses with that of the first
    `window`, and trips when it exceeds `factor` times, and by `margin`, what it was: early noise is forgiven, a rise
    that lasts is not. Memory is `window` losses; a step costs well under a microsecond, however steps are batched.
    """

    def __init__(self, policy: GuardPolicy) -> None:
        self._policy = policy
        self._steps = 0
        self._last: deque[float] = deque()
        self._sum = 0.0
        self._first = 0.0
        self._limit = math.inf
        self._reason = ""

    def feed(self, losses: Sequence[float]) -> str:
        """Takes in the next steps' losses.

        Args:
            losses: In the order of their steps, going on where the last call ended.

        Returns:
            Why the client should abandon, such as "loss rose from 2.30 to 9.81 within 14 steps"; "" while all is
            well. Once tripped it stays so.
        """
        if self._reason:
            return self._reason
        window, last = self._policy.window, self._last
        for loss in losses:
            if not math.isfinite(loss):
                self._reason = f"loss is {loss} at step {self._steps}"
                break
            self._steps += 1
            self._sum += loss
            last.append(loss)
            if self._steps > window:
                self._sum -= last.popleft()
                if self._sum > self._limit:
                    rise = f"from {_short(self._first)} to {_short(self._sum / window)}"
                    self._reason = f"loss rose {rise} within {self._steps} steps"
                    break
            elif self._steps == window:
                self._first = self._sum / window
                # Both conditions on the mean, as one on the sum.
                self._limit = window * max(self._policy.factor * self._first, self._first + self._policy.margin)
        return self._reason


def _short(loss: float) -> str:
    return f"{loss:.2f}" if 0.01 <= abs(loss) < 1e4 else f"{loss:.3g}"
