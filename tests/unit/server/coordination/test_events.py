"""The events of studies, on their way from a commit to whoever watches."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from e2e.studies import spec

from fedstep.server.coordination.events import EventFeed
from fedstep.server.coordination.executors import Executor
from fedstep.server.storage.base import Change, Event, NewEvent
from fedstep.server.storage.memory_store import MemoryStore


@pytest.fixture
def storage() -> Iterator[Executor]:
    executor = Executor("storage", 1)
    yield executor
    executor.shut_down()


async def test_what_is_committed_is_told_though_its_caller_is_cancelled_meanwhile(storage: Executor) -> None:
    with closing(MemoryStore()) as store:
        feed, begun, go_on = EventFeed(store, storage), threading.Event(), threading.Event()
        store.create_study(spec())

        def commit(kind: str) -> list[Event]:
            begun.set()
            go_on.wait()
            return store.commit("s", Change(events=[NewEvent(kind, kind)]))

        go_on.set()
        await feed.commit("s", lambda: commit("first"))
        go_on.clear()
        begun.clear()
        done: list[str] = []
        second = asyncio.create_task(feed.commit("s", lambda: commit("second"), lambda: done.append("second")))
        await asyncio.to_thread(begun.wait)
        second.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert done == ["second"]
        await feed.commit("s", lambda: commit("third"))
        (first, *_) = store.events("s", 0, 10)
        told = [event.kind async for event in feed.watch("s", first.number, lambda: True)]
    assert told == ["second", "third"]
