"""What waits to be told to the coordinator, across connections."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator

from fedstep.client.reporter import DEFAULT_MAX_STEPS, Reporter
from fedstep.client.work import Monotonic
from fedstep.v1 import fleet_pb2 as pb

_KEPT_OUTCOMES = 256
_KEPT_SENT = 16
_RESEND_S = 5.0


class Outbox:
    """Outcomes, and the step reports of every assignment under way. Lives on the event loop.

    Steps are bounded in each reporter, outcomes by the number of assignments a client takes. An outcome that was
    written shortly before a cut is written again after it: nobody acknowledges them, and the coordinator knows a
    repeat by its assignment.

    Attributes:
        changed: Set when there is something to write now.
    """

    def __init__(self, clock: Monotonic) -> None:
        self.changed = asyncio.Event()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._reporters: list[Reporter] = []
        self._outcomes: deque[pb.Outcome] = deque(maxlen=_KEPT_OUTCOMES)
        self._sent: deque[tuple[float, pb.Outcome]] = deque(maxlen=_KEPT_SENT)
        self._drained = asyncio.Event()  # cleared by whoever wants everything written now
        self._drained.set()
        self._draining = False
        self._max_steps = DEFAULT_MAX_STEPS
        self._connected = False

    def reporter(self, ref: pb.AssignmentRef) -> Reporter:
        """A reporter for one assignment, whose steps will be told until it is closed."""
        reporter = Reporter(ref, self._wake_from_thread, self._max_steps)
        self._reporters.append(reporter)
        self.changed.set()
        return reporter

    async def close(self, reporter: Reporter, wait_s: float) -> None:
        """No more steps will come: tells those that are left, and waits a moment until they are told."""
        reporter.closed = True
        if reporter.pending and self._connected:
            await self.drained(wait_s)
        self._drop_closed()

    def put(self, outcome: pb.Outcome) -> None:
        """Tells how a piece of work ended, after the steps it took."""
        self._outcomes.append(outcome)
        self.changed.set()

    def forget(self) -> None:
        """Drops everything: the coordinator has said that it will not use it."""
        self._outcomes.clear()
        self._sent.clear()

    async def drained(self, wait_s: float) -> bool:
        """Waits until all is written; False when that took longer than `wait_s`."""
        self._drained.clear()
        self.changed.set()
        try:
            async with asyncio.timeout(wait_s):
                await self._drained.wait()
        except TimeoutError:
            return False
        return True

    def begin(self, max_steps: int) -> None:
        """A session has begun whose reports hold at most that many steps."""
        self._connected = True
        self._max_steps = max_steps or DEFAULT_MAX_STEPS
        for reporter in self._reporters:
            reporter.max_steps = self._max_steps
        self.changed.set()

    def end(self) -> None:
        """The session has ended."""
        self._connected = False

    def unconfirmed(self) -> list[pb.AssignmentRef]:
        """The assignments whose outcome will be written in the next session; called once before it begins."""
        since = self._clock() - _RESEND_S
        again = [outcome for sent_at, outcome in self._sent if sent_at >= since]
        self._sent.clear()
        self._outcomes.extendleft(reversed(again))
        return [outcome.ref for outcome in self._outcomes]

    @property
    def reporting(self) -> bool:
        """Whether any assignment may have steps to tell."""
        return bool(self._reporters)

    def due(self, everything: bool) -> Iterator[pb.ConnectRequest]:
        """What to write now, in order: steps before the outcome they led to.

        Args:
            everything: Whether the time for reports has come; otherwise only full batches and urgent ones are told.
        """
        self._draining = not self._drained.is_set()
        told = list(self._outcomes)  # one that comes meanwhile waits for the next time, and for its own steps
        for reporter in list(self._reporters):
            while (everything or self._draining or told or reporter.urgent) and (report := reporter.take()) is not None:
                yield pb.ConnectRequest(step_report=report)
        for outcome in told:
            yield pb.ConnectRequest(outcome=outcome)
            # Written: only now is it no longer ours to write.
            if self._outcomes and self._outcomes[0] is outcome:
                self._outcomes.popleft()
                self._sent.append((self._clock(), outcome))

    def written(self) -> None:
        """All that was due has been written."""
        self._drop_closed()
        if self._draining:
            self._drained.set()
        elif not self._drained.is_set():
            self.changed.set()  # somebody began to wait while this was being written

    def _drop_closed(self) -> None:
        self._reporters = [reporter for reporter in self._reporters if reporter.pending or not reporter.closed]

    def _wake_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(self.changed.set)
