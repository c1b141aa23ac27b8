"""Long reads from the store, a part at a time: others wait for it."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

from fedstep.server.coordination.executors import Executor
from fedstep.server.coordination.parts import Parts
from fedstep.server.storage.base import AssignmentRecord, Event

T = TypeVar("T")

_AT_ONCE = 1000


async def in_parts(storage: Executor, records: Iterator[T], most: int) -> AsyncIterator[list[T]]:
    """What an iterator of the store gives, at most so many at once; the storage executor's thread draws from it."""

    def some() -> list[T]:
        return list(itertools.islice(records, most))

    while part := await storage.run(some):
        yield part


async def assignments_of(study: str, parts: Parts) -> AsyncIterator[list[AssignmentRecord]]:
    """A study's assignments over all lives of the coordinator, without their steps."""
    storage = parts.executors.storage
    records = await storage.run(parts.store.assignments, study, None, None, "", False)
    async for part in in_parts(storage, records, _AT_ONCE):
        yield part


async def events_of(study: str, parts: Parts, kind: str = "") -> AsyncIterator[list[Event]]:
    """A study's events, of one kind or all."""
    after = 0
    while part := await parts.executors.storage.run(parts.store.events, study, after, _AT_ONCE, kind):
        yield part
        after = part[-1].number
