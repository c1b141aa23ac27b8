"""A study's tuner, which those who train for the study and programs outside ask, one after the other."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import ParamSpec, TypeVar

from fedstep.common.clock import Clock
from fedstep.common.errors import InvalidInputError
from fedstep.server.coordination.executors import Executor, to_its_end
from fedstep.server.coordination.stopwatch import Stopwatch
from fedstep.server.tuning.base import Tuner

P = ParamSpec("P")
R = TypeVar("R")


class SharedTuner:
    """Whoever asks has its turn: nothing else is asked meanwhile, and whoever waits looks again after it.

    Args:
        storage: Where a tuner is called, since it may block.
        stopwatch: Counts the time of the study's own calls.
        clock: For how long somebody outside is waited for.
        commit: Commits the tuner's state.
    """

    def __init__(
        self, storage: Executor, stopwatch: Stopwatch, clock: Clock, commit: Callable[[], Awaitable[None]]
    ) -> None:
        self._storage = storage
        self._stopwatch = stopwatch
        self._clock = clock
        self._commit = commit
        self._tuner: Tuner | None = None
        self._searching: bool | None = None  # None: not yet
        self._waits_until: datetime | None = None
        self.left_alone = False
        """Whether somebody outside was waited for, and did not come."""
        self.turn = asyncio.Condition()
        """Held while the tuner is asked, where its answer is to be the last word."""

    @property
    def is_there(self) -> bool:
        """Whether the study has begun."""
        return self._tuner is not None

    @property
    def inner(self) -> Tuner:
        """The tuner itself, for what does not block.

        Raises:
            InvalidInputError: The study has not begun.
        """
        if self._tuner is None:
            raise InvalidInputError("the study has not begun")
        return self._tuner

    def enter(self, tuner: Tuner) -> None:
        """The study has begun, with this one."""
        self._tuner = tuner

    async def ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the tuner for the study itself; the time is counted."""
        return await self._storage.run(lambda: self._stopwatch.tuning(call, *args, **kwargs))

    async def wake(self) -> None:
        """Whoever waits looks again."""
        async with self.turn:
            self.turn.notify_all()

    async def is_searching(self, searching: bool) -> None:
        """From now on programs outside are heard, or no more."""
        async with self.turn:
            self._searching = searching
            self.turn.notify_all()

    async def steer(self, request: Callable[[Tuner], R]) -> R | None:
        """Has somebody outside ask for something; it is committed before it is answered.

        Args:
            request: Called as the tuner's own methods are.

        Returns:
            What the request gave; None where the study searches no more.
        """
        async with self.turn:
            await self.turn.wait_for(lambda: self._searching is not None)
        return await to_its_end(self._steered(request))

    async def _steered(self, request: Callable[[Tuner], R]) -> R | None:
        async with self.turn:
            if not self._searching:
                return None
            answer = await self._storage.run(request, self.inner)
            await self._commit()
            self.turn.notify_all()
            return answer

    async def until(self, condition: Callable[[Tuner], bool]) -> None:
        """Waits until the tuner has come to something and it is committed, or the study searches no more.

        Args:
            condition: Asked again after every request and every observation, on the event loop.
        """
        async with self.turn:
            await self.turn.wait_for(
                lambda: self._searching is False or bool(self._searching and condition(self.inner))
            )

    async def somebody_asks(self) -> bool:
        """In a turn: waits for somebody outside who may ask for an arm; False when it is too late for that."""
        now = self._clock.now()
        until = await self._storage.run(self.inner.waits_until, now)
        if until is None or until <= now:
            self.left_alone = until is not None
            return False
        if until != self._waits_until:  # a restart does not begin to wait anew
            await self._commit()
            self._waits_until = until
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((until - now).total_seconds()):
                await self.turn.wait()
        return True

    async def close(self) -> None:
        """Lets go of what the tuner holds."""
        if self._tuner is not None:
            await self._storage.run(self._tuner.close)
