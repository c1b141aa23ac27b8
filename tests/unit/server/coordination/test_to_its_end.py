"""Work that must not be left half-done, and whoever waits for it is cancelled."""

import asyncio
import gc
from typing import Any

import pytest

from fedstep.server.coordination.executors import to_its_end


async def test_a_cancellation_comes_after_the_work_and_takes_its_error_along() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    may_end, steps = asyncio.Event(), []

    async def work() -> None:
        steps.append("begun")
        await may_end.wait()
        steps.append("ended")
        raise ValueError("too late")

    waiting = asyncio.create_task(to_its_end(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert steps == ["begun"]
    may_end.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await waiting
    assert steps == ["begun", "ended"]
    assert isinstance(cancelled.value.__cause__, ValueError)
    del waiting, cancelled
    gc.collect()
    assert complaints == []  # asyncio has nothing to say of an exception that nobody retrieved


async def test_without_a_cancellation_the_work_answers_itself() -> None:
    async def work() -> int:
        return 3

    assert await to_its_end(work()) == 3
