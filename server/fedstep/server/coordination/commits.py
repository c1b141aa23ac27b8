"""What becomes of a study is committed here: its rounds and events, how it ended, and that it stands still."""

import asyncio
import functools
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from fedstep.common.errors import StorageError
from fedstep.server.coordination.account import Account, cost_of_arm, counted
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.pausing import commit_paused
from fedstep.server.coordination.shared_tuner import SharedTuner
from fedstep.server.coordination.stopwatch import Stopwatch
from fedstep.server.storage.base import Change, Event, NewEvent, StudyRecord, StudyState
from fedstep.server.storage.costs import Overhead
from fedstep.server.tuning.base import Cost

log = logging.getLogger(__name__)

END_RETRIES_S = (0.5, 2.0, 5.0, 10.0)
"""Waits between tries to commit how a study ended, when the database has gone away."""

_TOLD_MEANWHILE = (StudyState.PAUSING, StudyState.STOPPING)


class Commits:
    """Commits what becomes of one study, with the time it has taken and its tuner's state, and knows where it stands.

    Args:
        record: The study as the store has it.
        account: What it has cost.
        tuner: Its tuner.
        stopwatch: Takes the time of every commit.
        parts: Whose store and feed are written to.

    Attributes:
        state: Where the study stands.
        pausing: Whether it was told to pause.
        spent: What it has cost, as far as that is committed.
    """

    def __init__(
        self, record: StudyRecord, account: Account, tuner: SharedTuner, stopwatch: Stopwatch, parts: Parts
    ) -> None:
        self.state = record.state
        self.pausing = False
        self.spent = record.spent
        self._name = record.spec.name
        self._account = account
        self._tuner = tuner
        self._stopwatch = stopwatch
        self._parts = parts

    async def make(
        self, change: Change, state: StudyState | None = None, then: Callable[[], object] = lambda: None
    ) -> None:
        """Commits a change, enters the state, calls `then`, and tells the watchers, who find it as they are told."""
        seconds = self._account.count_seconds()

        def commit(overhead: Overhead) -> list[Event]:
            """The tuner's state as it is now goes with it: newer than the round does no harm, older would."""
            tuner_state = self._tuner.inner.state() if self._tuner.is_there else None
            kept = change.state
            if kept is StudyState.RUNNING and self._parts.store.study(self._name).state in _TOLD_MEANWHILE:
                kept = None  # it was told to pause, or to stop, while it began
            counted = Overhead() if self._account.stopped else overhead
            whole = replace(change, seconds=seconds, tuner_state=tuner_state, overhead=counted, state=kept)
            return self._parts.store.commit(self._name, whole)

        def known() -> None:
            self.spent += change.spent
            if state is not None:
                self.state = state
            then()

        await self._parts.feed.commit(self._name, lambda: self._stopwatch.committing(commit), known)

    async def announce(self, event: NewEvent) -> None:
        """Commits an event by itself and tells the watchers."""
        await self.make(Change(events=[event]))

    async def charge(self, trial: int, cost: Cost, event: NewEvent) -> None:
        """Commits a trial's cost with the event that tells what it was for."""
        self._account.spend(cost)
        await self.make(Change(events=[event], spent=counted(cost), cost=cost_of_arm(trial, cost)))

    async def settle(self) -> None:
        """Commits what the study has cost to here, and counts no more: its results are written from what is committed,
        and tell the same as whoever asks later."""
        await self.make(Change())
        self._account.stop()

    async def end(self, state: StudyState, message: str, goes_on: bool = False, in_haste: bool = False) -> None:
        """Commits how the study ended, for as long as that takes: nobody runs it, and all must know.

        Args:
            state: Its end.
            message: Why.
            goes_on: It goes on by itself: told to stop or to pause, even meanwhile, it does so when it does.
            in_haste: The process ends: after `END_RETRIES_S` it is given up.
        """
        event = NewEvent(f"study_{state.value}", f"Study {self._name} is {state.value}: {message}", {})

        async def end() -> None:
            left = await self._asked(state) if goes_on else state
            await self.make(Change(state=left, message=message, events=[event]), left)

        await self._insist("the end", end, END_RETRIES_S if in_haste else None)

    async def _asked(self, otherwise: StudyState) -> StudyState:
        """What somebody has asked for, where that is still to be done."""
        if self.state is StudyState.STOPPING:
            return StudyState.STOPPING
        if self.pausing:
            record = await self._parts.executors.storage.run(self._parts.store.study, self._name)
            return StudyState.PAUSING if record.state is StudyState.PAUSING else otherwise
        return otherwise

    async def pause(self) -> None:
        """Commits that the study stands still, unless it was resumed or stopped meanwhile."""
        state = self._tuner.inner.state()

        async def pause() -> None:
            seconds = self._account.count_seconds()
            await self._parts.feed.commit(
                self._name, functools.partial(commit_paused, self._parts.store, self._name, seconds, state)
            )

        await self._insist("the pause", pause)

    async def _insist(
        self, what: str, commit: Callable[[], Awaitable[None]], waits_s: Iterable[float] | None = None
    ) -> None:
        """Commits, and again where the database has gone away, after each of these waits; without them for ever."""
        for wait_s in waits_s or itertools.chain(END_RETRIES_S, itertools.repeat(END_RETRIES_S[-1])):
            try:
                await commit()
                return
            except StorageError as error:  # perhaps what ended the study; it may pass
                log.warning("%s of study %s cannot be committed yet: %s", what, self._name, error)
                await asyncio.sleep(wait_s)
