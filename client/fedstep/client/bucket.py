"""Bytes at a bounded rate."""

import asyncio
import math

from fedstep.client.work import Monotonic


class Bucket:
    """Lets bytes through at a rate, in the order in which they ask. One that is full holds nothing: no bursts.

    Args:
        bytes_per_s: The rate; infinite to let everything through at once.
        clock: Monotonic seconds.
    """

    def __init__(self, bytes_per_s: float, clock: Monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at_s = -math.inf

    def claim(self, size_bytes: int) -> float:
        """Puts so many bytes behind those that asked before; answers with the seconds until they are through."""
        now_s = self._clock()
        self._free_at_s = max(now_s, self._free_at_s) + size_bytes / self._bytes_per_s
        return self._free_at_s - now_s

    async def pass_through(self, size_bytes: int) -> None:
        """Waits until so many bytes are through."""
        wait_s = self.claim(size_bytes)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
