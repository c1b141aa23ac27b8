import asyncio
import threading
import time
from datetime import timedelta

import pytest

from fedstep.common.errors import InternalError
from fedstep.simulation.virtual_loop import START, VirtualClock, run_virtual


def test_waiting_takes_virtual_time_only() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        clock = VirtualClock(loop)
        await asyncio.sleep(86_400 * 365)
        assert clock.now() - START == timedelta(days=365)
        return loop.time(), clock.monotonic()

    began = time.monotonic()
    assert run_virtual(main()) == (86_400 * 365, 86_400 * 365)
    assert time.monotonic() - began < 60


def test_what_is_due_comes_in_the_order_of_its_time() -> None:
    async def main() -> list[tuple[str, float]]:
        loop, seen = asyncio.get_running_loop(), []

        async def one(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, loop.time()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 3.5), ("a", 0.25), ("b", 3.0)):
                group.create_task(one(name, seconds))
        return seen

    assert run_virtual(main()) == [("a", 0.25), ("b", 3.0), ("c", 3.5)]


def test_a_deadline_passes_at_its_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 7


def test_what_is_ready_takes_no_time() -> None:
    async def main() -> float:
        asyncio.get_running_loop().call_later(10, lambda: None)
        for _ in range(100):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 0


def test_a_wait_that_cannot_end_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(InternalError, match="stands still"):
        run_virtual(main())


def test_each_loop_has_a_time_of_its_own() -> None:
    async def main() -> float:
        await asyncio.sleep(1)
        return asyncio.get_running_loop().time()

    times: list[float] = []
    threads = [threading.Thread(target=lambda: times.append(run_virtual(main()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times == [1, 1]
