import asyncio
import threading

import pytest

from fedstep.client.worker import WorkerThread
from fedstep.common.errors import InternalError


async def test_it_runs_in_its_thread_and_raises_what_is_raised() -> None:
    worker = WorkerThread("busy-bee")
    async with worker.turn:
        assert await worker.run(lambda: threading.current_thread().name) == "busy-bee"
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 / 0)
        with pytest.raises(
            InternalError, match=r"StopIteration: no message \(test_worker\.py, line "
        ):  # as futures cannot
            await worker.run(lambda: next(iter(())))
        assert await worker.run(lambda: 2) == 2
    worker.close()


async def test_it_knows_work_that_nobody_waits_for_any_more() -> None:
    worker = WorkerThread("busy-bee")
    leave = threading.Event()
    waiting = asyncio.create_task(worker.run(leave.wait))
    while not worker.busy:  # noqa: ASYNC110
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert worker.busy
    leave.set()
    while worker.busy:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    worker.close()
