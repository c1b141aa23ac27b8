"""An event loop on which waiting costs nothing: when nobody can go on, its clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from fedstep.common.allocator import keep_freed_memory
from fedstep.common.errors import InternalError

T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""What the wall clock of a simulation shows at first; the same every time, so that records are too."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, whose `time` moves only when there is nothing else to do.

    Deadlines, timeouts and `asyncio.sleep` keep their order and cost no time. What is computed takes no virtual time
    at all: a simulation says by `asyncio.sleep` how long things take.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_Jumping(self._jump))
        # A timer is due when it is this near. asyncio's nanosecond is lost in a float that counts months of seconds.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now_s

    def _jump(self, seconds: float) -> None:
        self._now_s += seconds


class _Jumping(selectors.DefaultSelector):
    """Where the loop would wait for its next timer, tells it how long that would have been."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is there now.

        Raises:
            InternalError: Nothing is there, and no timer is left that could change it.
        """
        there = super().select(0)
        if there or timeout == 0:
            return there
        if timeout is None:
            raise InternalError("The simulation stands still: everybody waits for somebody else, and no timer is set.")
        self._jump(timeout)
        return there


class VirtualClock:
    """A virtual loop's time as a `fedstep.common.clock.Clock`.

    Args:
        loop: Whose time.
        start: What `now` is when the loop's time is 0.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, start: datetime = START) -> None:
        self._loop = loop
        self._start = start

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def now(self) -> datetime:
        """The start and the virtual seconds since."""
        return self._start + timedelta(seconds=self._loop.time())


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end on a virtual loop of its own.

    Raises:
        InternalError: It waits for what cannot happen.
    """
    keep_freed_memory()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
