"""How long the coordinator itself works for a study: in its tuner, in its commits, and on the CPU."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fedstep.common.clock import Clock
from fedstep.server.storage.costs import Overhead

P = ParamSpec("P")
R = TypeVar("R")


class Running:
    """What all studies of a coordinator have taken of it since it was started; `so_far` may be read in any thread."""

    def __init__(self) -> None:
        self.so_far = Overhead()

    def add(self, overhead: Overhead) -> None:
        """Adds what a study took; called by the storage executor's one thread."""
        self.so_far += overhead


class Stopwatch:
    """Adds up what a study takes of the coordinator. Its calls come from the storage executor's one thread.

    Args:
        clock: For the times; those of the CPU are the operating system's.
        running: Told of it as well.
    """

    def __init__(self, clock: Clock, running: Running) -> None:
        self._clock = clock
        self._running = running
        self._uncommitted = Overhead()
        self._process_s = time.process_time()

    def tuning(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the tuner, and counts the call."""
        began, cpu = self._clock.monotonic(), time.thread_time()
        try:
            return call(*args, **kwargs)
        finally:
            seconds, cpu_seconds = self._clock.monotonic() - began, time.thread_time() - cpu
            took = Overhead(tuner_seconds=seconds, tuner_cpu_seconds=cpu_seconds)
            self._uncommitted += took
            self._running.add(took)

    def committing(self, commit: Callable[[Overhead], R]) -> R:
        """Commits with what was counted since the last commit; how long it took itself goes with the next one."""
        now = time.process_time()
        counted = self._uncommitted + Overhead(cpu_seconds=now - self._process_s)
        began = self._clock.monotonic()
        committed = commit(counted)  # where it fails, nothing of it is forgotten
        self._uncommitted = Overhead(commit_seconds=self._clock.monotonic() - began)
        self._running.add(self._uncommitted)
        self._process_s = now
        return committed
