"""How late the event loop is: what anything blocking on it would show in."""

import asyncio
from collections import deque
from collections.abc import Callable

INTERVAL_S = 0.01
SAMPLES = 60_000


class LoopLag:
    """Measures by how much a timer of 10 ms is late; keeps the last ten minutes."""

    def __init__(self) -> None:
        self._late_ms: deque[float] = deque(maxlen=SAMPLES)
        self._told: list[Callable[[float], None]] = []

    def when_late(self, call: Callable[[float], None]) -> None:
        """Has `call` told of every sample, in seconds."""
        self._told.append(call)

    async def measure(self) -> None:
        """Runs for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + INTERVAL_S
            await asyncio.sleep(INTERVAL_S)
            late_s = max(0.0, loop.time() - due)
            self._late_ms.append(late_s * 1e3)
            for call in self._told:
                call(late_s)

    def percentile_ms(self, share: float) -> float:
        """The lag in milliseconds that a share of the samples, such as 0.99, stays within; 0 before the first."""
        ordered = sorted(self._late_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    @property
    def max_ms(self) -> float:
        """The greatest lag kept."""
        return max(self._late_ms, default=0.0)
