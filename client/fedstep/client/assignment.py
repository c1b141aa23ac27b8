"""One assignment under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedstep.client.work import AbandonedError, Control, Instruction, Monotonic
from fedstep.common.durations import seconds_of
from fedstep.v1 import fleet_pb2 as pb

_DEFAULT_TIME_S = 3600.0


class Active:
    """An assignment, how it is steered, and the phase it is in.

    Attributes:
        assignment: As it came.
        control: What the working thread reads.
        began_s: When it came, by the clock.
        begun: The work itself has begun, so that there may be something to send.
        silent: Nobody wants to hear of it any more: it was superseded, or the coordinator has gone.
    """

    def __init__(self, assignment: pb.Assignment, clock: Monotonic) -> None:
        self.assignment = assignment
        self.began_s = clock()
        self._clock = clock
        # The two sides' clocks are never compared: the time left counts from the message's arrival.
        left_s = seconds_of(assignment.time_left) if assignment.HasField("time_left") else _DEFAULT_TIME_S
        self.control = Control(self.began_s + left_s, clock=clock)
        self.begun = False
        self.silent = False
        self._phase: asyncio.Timeout | None = None

    @property
    def ref(self) -> pb.AssignmentRef:
        """Assignment and attempt."""
        return self.assignment.ref

    @property
    def label(self) -> str:
        """Study, trial and round, for people."""
        return f"study {self.assignment.study}, trial {self.assignment.trial}, round {self.assignment.round}"

    @property
    def elapsed_s(self) -> float:
        """Seconds since it came."""
        return self._clock() - self.began_s

    @asynccontextmanager
    async def phase(self) -> AsyncIterator[None]:
        """Around anything but the work itself: it ends at once when the assignment is abandoned or out of time.

        The work itself asks its control before every step instead.

        Raises:
            AbandonedError: It ended so.
        """
        self._check()
        timeout = asyncio.timeout(self.control.time_left_s())
        try:
            async with timeout:
                self._phase = timeout
                yield
        except TimeoutError:
            if timeout.expired():
                self._check()
                raise AbandonedError("ran out of time") from None
            raise
        finally:
            self._phase = None

    def abandon(self, reason: str) -> None:
        """Stops it before its next step; nothing is sent."""
        self.control.tell(Instruction.ABANDON, reason)
        if self._phase is not None and not self._phase.expired():
            self._phase.reschedule(0.0)

    def stop_and_send(self, reason: str) -> None:
        """Stops training before its next step, and lets what there is be sent; nothing, where it has not begun."""
        if not self.begun:
            self.abandon(reason)
        elif self.control.instruction is Instruction.GO_ON:
            self.control.tell(Instruction.STOP_AND_SEND, reason)

    def extend(self, time_left_s: float) -> None:
        """Gives it that much time from now on."""
        self.control.deadline_s = self._clock() + time_left_s
        if self._phase is not None and not self._phase.expired():
            self._phase.reschedule(asyncio.get_running_loop().time() + time_left_s)

    def _check(self) -> None:
        if self.control.instruction is Instruction.ABANDON:
            raise AbandonedError(self.control.reason)
