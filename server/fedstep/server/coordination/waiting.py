"""Waiting for the clients of a study, and never longer than it has time."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta

from fedstep.common.clock import Clock
from fedstep.common.errors import UnavailableError
from fedstep.common.phrases import count_text
from fedstep.common.spec import StudySpec
from fedstep.server.coordination.eligible import Eligible
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.report.units import seconds_text
from fedstep.server.report.words import names_text
from fedstep.server.storage.base import NewEvent

BUSY_WAIT_S = 5.0
"""How often it is looked again who is there, while clients are busy."""

RETURN_WAIT_S = 8.0
"""Clients that lost their coordinator try again every five seconds or sooner."""

_A_MOMENT_S = 0.001
"""A timer may ring a hair early: waited for so much longer, a study's time is used up for certain."""

Announce = Callable[[NewEvent], Awaitable[None]]
"""Tells a study's watchers something that cannot wait for a round's commit."""


class Waiting:
    """Waits for a study's clients until it is stopped, or its time is used up.

    Args:
        spec: The study.
        fleet: Who is there.
        eligible: Who of them can have its work.
        clock: For people, who are told until when clients are waited for.
        announce: For what cannot wait.
        time_left_s: Seconds until the study's time is used up.
    """

    def __init__(
        self,
        spec: StudySpec,
        fleet: Fleet,
        eligible: Eligible,
        clock: Clock,
        announce: Announce,
        time_left_s: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._fleet = fleet
        self._eligible = eligible
        self._clock = clock
        self._announce = announce
        self._time_left_s = time_left_s
        self._stopping = False

    def stop(self) -> None:
        """Ends all waiting, now and later."""
        self._stopping = True
        self._fleet.wake()

    @property
    def over(self) -> bool:
        """Whether nobody is waited for any more."""
        return self._stopping or self._time_left_s() <= 0

    def _at_most_s(self, wait_s: float) -> float:
        """So long, or until the study's time is used up."""
        return min(wait_s, max(0.0, self._time_left_s()) + _A_MOMENT_S)

    async def until(self, can_go_on: Callable[[], bool], least: int) -> None:
        """Waits until something holds, without end while so many clients are there: their rounds have deadlines.

        Raises:
            UnavailableError: Too few clients came.
        """
        await self.for_clients(least)
        while not (self.over or can_go_on()):
            await self._fleet.wait_until(lambda: self.over or can_go_on(), self._at_most_s(BUSY_WAIT_S))
            await self.for_clients(least)

    async def for_clients(self, least: int) -> bool:
        """Waits until so many clients are there, busy ones included, and says who is missing and until when.

        Returns:
            False when the study was stopped meanwhile, or its time was used up before they came.

        Raises:
            UnavailableError: Too few clients came.
        """
        longest_s = self._spec.round.wait_for_clients.total_seconds()
        wait_s = self._at_most_s(longest_s)
        wanted = count_text(least, "client")

        def ready() -> bool:
            return self._stopping or self._eligible.count() >= least

        if not ready():
            here = self._eligible.names()
            until = (self._clock.now() + timedelta(seconds=wait_s)).strftime("%H:%M:%S UTC")
            until += ", when the study's time is used up," if wait_s < longest_s else ""
            text = (
                f"Waiting until {until} for {wanted} of task {self._spec.task}; here now: {', '.join(here) or 'none'}"
                f"{self._of_the_drained()}."
            )
            await self._announce(
                NewEvent("waiting_for_clients", text, {"needed": least, "here": here, "wait_s": wait_s})
            )
        if not await self._fleet.wait_until(ready, wait_s):
            if self.over:
                return False
            raise UnavailableError(
                f"Only {self._eligible.count()} of the {wanted} of task {self._spec.task} that are "
                f"needed came within {wait_s:g} s{self._of_the_drained()}: start more with `fedstep client --task "
                f"{self._spec.task}`."
            )
        return self._eligible.count() >= least

    def _of_the_drained(self) -> str:
        drained = self._eligible.drained()
        return f" ({drained} drained; `fedstep fleet undrain` gives them work again)" if drained else ""

    async def for_return(self, names: Collection[str]) -> None:
        """Waits a little for clients that were there before the coordinator was started again."""

        def missing() -> set[str]:
            return set(names).difference(self._eligible.names())

        wait_s = self._at_most_s(RETURN_WAIT_S)
        if absent := sorted(missing()):
            text = (
                f"Waiting {seconds_text(wait_s)} for clients that trained before and are not back yet: "
                f"{names_text(absent)}."
            )
            await self._announce(NewEvent("clients_missing", text, {"missing": absent}))
            await self._fleet.wait_until(lambda: self._stopping or not missing(), wait_s)

    async def to_hear_of(self, members: Sequence[Member]) -> None:
        """Waits until each of these has been heard of again, or its lease has run out and it counts as gone.

        A round of a second misses its quorum three times before anybody knows that a network is down. Clients that
        are there break their silence well within a lease.
        """
        since = [(member, member.heard_at) for member in members]
        for _ in range(60):  # looks; a lease that has run out is found after nine eighths of it
            if self.over or not any(self._fleet.in_doubt(member, heard_at) for member, heard_at in since):
                return
            await asyncio.sleep(self._fleet.policy.lease.total_seconds() / 48)
