"""Step reports: written by the training thread at next to no cost, read by the event loop in batches."""

import math
import threading
from collections import deque
from collections.abc import Callable

from fedstep.v1 import fleet_pb2 as pb

KEPT_STEPS = 10_000
"""Steps of one assignment kept while nobody can be told; beyond that the oldest are dropped."""

DEFAULT_MAX_STEPS = 100
"""Steps in a report where the coordinator does not say."""


class Reporter:
    """The steps of one assignment that are still to be told.

    The training thread appends; the event loop takes. The loop is woken at most once between two takes: when a batch
    is full, and at once when a loss is not a number.

    Attributes:
        ref: The assignment and attempt it is about.
        max_steps: Steps that make a batch full; each session sets its own.
        closed: No more steps will come.
    """

    def __init__(self, ref: pb.AssignmentRef, wake: Callable[[], None], max_steps: int = DEFAULT_MAX_STEPS) -> None:
        """An empty one.

        Args:
            ref: The assignment and attempt it is about.
            wake: Wakes the event loop; called from the training thread.
            max_steps: Steps that make a batch full.
        """
        self.ref = ref
        self.max_steps = max_steps
        self.closed = False
        self._wake = wake
        self._lock = threading.Lock()
        self._rows: deque[tuple[float, int, float]] = deque()
        self._taken = 0  # the number of the first row still here
        self._urgent = False

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        """One local step, from the training thread."""
        with self._lock:
            self._rows.append((loss, samples, step_ms))
            if len(self._rows) > KEPT_STEPS:
                self._rows.popleft()
                self._taken += 1
            wake = not self._urgent and (len(self._rows) >= self.max_steps or not math.isfinite(loss))
            self._urgent |= wake
        if wake:
            self._wake()

    @property
    def urgent(self) -> bool:
        """Whether a report should leave now instead of at its time."""
        return self._urgent

    @property
    def pending(self) -> int:
        """Steps not taken yet."""
        return len(self._rows)

    def take(self) -> pb.StepReport | None:
        """The oldest steps, at most `max_steps` of them; None when there are none.

        Steps that were dropped show as a gap between one report's last step and the next one's first.
        """
        with self._lock:
            first = self._taken
            rows = [self._rows.popleft() for _ in range(min(len(self._rows), self.max_steps))]
            self._taken += len(rows)
            if not self._rows:
                self._urgent = False
        if not rows:
            return None
        losses, samples, step_ms = zip(*rows, strict=True)
        return pb.StepReport(ref=self.ref, first_step=first, loss=losses, samples=samples, step_ms=step_ms)
