"""One thread that does one piece of work at a time, for an event loop."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from fedstep.common.raised import awaited

T = TypeVar("T")


class WorkerThread:
    """A named daemon thread. Not a ThreadPoolExecutor: that one keeps a process alive until a long local step ends.

    Attributes:
        turn: Held by whoever uses the thread, from before `run` until after it; waiting for it can be cancelled, while
            work once begun is waited for.
    """

    def __init__(self, name: str) -> None:
        """The thread starts with its first work.

        Args:
            name: Of the thread.
        """
        self.turn = asyncio.Lock()
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=2)
        self._busy = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs it in the thread, and raises what it raises. The caller holds `turn`."""
        if not self._thread.is_alive():
            self._thread.start()
        future: Future[T] = Future()

        def job() -> None:
            try:
                result = awaited(work)
            except BaseException as error:  # whatever it is, it belongs to the one who waits
                self._busy = False
                future.set_exception(error)
            else:
                self._busy = False
                future.set_result(result)

        self._busy = True
        self._jobs.put_nowait(job)
        # Shielded: one who stops waiting does not stop the work, and its end needs a future to go to.
        return await asyncio.shield(asyncio.wrap_future(future))

    @property
    def busy(self) -> bool:
        """Whether work is in the thread's hands, waited for or not."""
        return self._busy

    def close(self) -> None:
        """Lets the thread end once it has nothing to do."""
        if self._thread.is_alive():
            self._jobs.put_nowait(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # and with it the model it holds
