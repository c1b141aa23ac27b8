"""Events of studies, from the store's commits to whoever watches."""

import asyncio
import itertools
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence

from fedstep.server.coordination.executors import Executor, to_its_end
from fedstep.server.storage.base import Event, Store

log = logging.getLogger(__name__)

RECENT = 1000
PAGE = 500


class EventFeed:
    """Hands a study's events to its watchers, in order and without a gap.

    The store is the source: a watcher that falls behind, or asks for the past, reads there. The latest events are
    also kept here, so that watching costs the database nothing.
    """

    def __init__(self, store: Store, storage: Executor) -> None:
        self._store = store
        self._storage = storage
        self._recent: dict[str, deque[Event]] = {}
        self._changed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._hooks: list[Callable[[str, Sequence[Event]], None]] = []

    def when_published(self, call: Callable[[str, Sequence[Event]], None]) -> None:
        """Has `call` told of every commit's events: the study's name and the events. It must not block."""
        self._hooks.append(call)

    async def commit(
        self, study: str, commit: Callable[[], list[Event]], then: Callable[[], None] = lambda: None
    ) -> None:
        """Commits something of a study and tells its watchers: of the latest events that are kept here none is missing.

        Both are done even where the caller is cancelled in between.

        Args:
            study: Its name.
            commit: Commits on the storage thread, and answers with the events.
            then: Called once that is done, before anybody is told.
        """

        async def both() -> None:
            events = await self._storage.run(commit)
            then()
            self.publish(study, events)

        await to_its_end(both())

    def publish(self, study: str, events: list[Event]) -> None:
        """Tells the watchers of a study what was committed, or only that its state has changed."""
        _log(study, events)
        for call in self._hooks:
            call(study, events)
        self._recent.setdefault(study, deque(maxlen=RECENT)).extend(events)
        if changed := self._changed.pop(study, None):
            changed.set()

    async def watch(self, study: str, after: int, ended: Callable[[], bool]) -> AsyncIterator[Event]:
        """Every event with a greater number, until `ended` says that there will be no more and all have been given."""
        while True:
            over = ended()
            events = await self._after(study, after)
            for event in events:
                yield event
                after = event.number
            if events:
                continue
            if over:
                return
            while not ended() and self._newest(study) <= after:
                await self._changed[study].wait()

    def _newest(self, study: str) -> int:
        recent = self._recent.get(study)
        return recent[-1].number if recent else 0

    async def _after(self, study: str, after: int) -> list[Event]:
        recent = self._recent.get(study)
        if recent and recent[0].number <= after:
            newer = list(itertools.takewhile(lambda event: event.number > after, reversed(recent)))
            return newer[::-1]
        return await self._storage.run(self._store.events, study, after, PAGE)


def _log(study: str, events: Sequence[Event]) -> None:
    """Every event is a line of the log; what it tells of stands beside it."""
    for event in events if log.isEnabledFor(logging.INFO) else ():
        told = {name: event.details.get(name) for name in ("trial", "round", "client")}
        known = {name: value for name, value in told.items() if value is not None}
        log.info("%s: %s", event.kind, event.text, extra={"fields": {"study": study, **known}})
