"""The threads that everything blocking runs on, so that the event loop never waits."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from fedstep.common.raised import awaited

P = ParamSpec("P")
R = TypeVar("R")


class Executor:
    """A named pool of threads that coroutines hand calls to.

    Args:
        name: Shown in the threads' names.
        threads: How many; one makes its calls take turns in the order they were handed over.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"fedstep-{name}")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function on a thread of the pool. It runs to its end even if the caller is cancelled."""
        context = contextvars.copy_context()  # what is logged there concerns what it concerns here
        call = partial(context.run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, awaited, call)

    @property
    def waiting(self) -> int:
        """Calls that no thread has begun yet."""
        return self._pool._work_queue.qsize()

    def shut_down(self) -> None:
        """Waits for the calls under way; later ones are refused."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Executors:
    """One pool a kind of work.

    Attributes:
        storage: The database and the tuner, one writer thread: SQLite takes one writer, and Optuna's study lives there.
        files: Model files.
        compute: torch: aggregation, server optimizers, held-out evaluation. One thread: a second one on a busy core
            slowed it 17-fold.
        bulk: Copying and hashing of uploads.
        drawing: Pictures and reports, which take seconds that nobody waits for.
    """

    def __init__(self) -> None:
        self.storage = Executor("storage", 1)
        self.files = Executor("files", 1)
        self.compute = Executor("compute", 1)
        self.bulk = Executor("bulk", 2)
        self.drawing = Executor("drawing", 1)

    def named(self) -> dict[str, Executor]:
        """Each by its name."""
        return {
            "storage": self.storage,
            "files": self.files,
            "compute": self.compute,
            "bulk": self.bulk,
            "drawing": self.drawing,
        }

    def shut_down(self) -> None:
        """Waits for everything under way."""
        for executor in (self.drawing, self.bulk, self.compute, self.files, self.storage):
            executor.shut_down()


async def to_its_end(work: Coroutine[Any, Any, R] | asyncio.Future[R]) -> R:
    """Lets work finish that must not be left half-done: a cancellation comes after it, with the work's error if any."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
