"""The local steps of one training: told as they end, and timed without making a GPU wait for its CPU."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from fedstep.client.work import DivergedError, StepSink

AHEAD = 8
"""Local steps that may be queued on a GPU and not be told yet: a directive holds after so many."""


class StepLog:
    """Every local step so far, handed on to whoever wants to know.

    Attributes:
        losses: Of all of them.
        samples: Of all of them.
    """

    def __init__(self, steps: StepSink) -> None:
        self._steps = steps
        self.losses: list[float] = []
        self.samples: list[int] = []

    def add(self, loss: float, samples: int, step_ms: float) -> None:
        """One more.

        Raises:
            DivergedError: Its loss is not finite; it was handed on.
        """
        self._steps.step(loss, samples, step_ms)
        self.losses.append(loss)
        self.samples.append(samples)
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss became {loss} at step {len(self.losses) - 1}: a lower lr may keep it finite."
            )

    def loss_of_last_pass(self, train_samples: int) -> float:
        """The mean loss of the last steps that together saw as many samples as there are."""
        seen, count = 0, 0
        while count < len(self.samples) and seen < train_samples:
            count += 1
            seen += self.samples[-count]
        return math.fsum(self.losses[-count:]) / count if count else math.nan


class Meter(Protocol):
    """Times local steps."""

    def begin(self) -> None:
        """A step begins: its batch is drawn next."""

    def end(self, loss: torch.Tensor, samples: int) -> None:
        """It was taken, or queued on its device; `loss` is a scalar there.

        Raises:
            DivergedError: The loss of this step or of an earlier one is not finite.
        """

    def finish(self) -> None:
        """Waits for all that is queued, and tells it."""


class HostMeter:
    """Reads every loss as its step ends, which waits for all that was queued: the step's time is its whole time.

    Args:
        log: Takes the steps.
        timer_s: Seconds.
    """

    def __init__(self, log: StepLog, timer_s: Callable[[], float]) -> None:
        self._log = log
        self._timer_s = timer_s
        self._began_s = 0.0

    def begin(self) -> None:
        """See `Meter.begin`."""
        self._began_s = self._timer_s()

    def end(self, loss: torch.Tensor, samples: int) -> None:
        """See `Meter.end`."""
        value = loss.item()
        self._log.add(value, samples, 1000 * (self._timer_s() - self._began_s))

    def finish(self) -> None:
        """See `Meter.finish`."""


class Event(Protocol):
    """What is used of a `torch.cuda.Event`."""

    def record(self) -> None:
        """Marks this place in the device's queue."""

    def query(self) -> bool:
        """Whether the device has come to it."""

    def synchronize(self) -> None:
        """Waits until it has."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to there."""


@dataclass
class _Queued:
    began: Event
    ended: Event
    loss: torch.Tensor
    samples: int


class EventMeter:
    """Times steps by marks in the queue of a GPU and reads their losses when it has come to them.

    The CPU never waits for a step that has just been queued, only for the one `AHEAD` steps before, so that directives
    hold soon. Losses are copied into pinned memory as a part of the queue, and read there.

    Args:
        log: Takes the steps, in their order.
        make_event: A mark that takes the time.
        pinned: Whether the losses' memory is pinned; not on machines without a GPU.
    """

    def __init__(self, log: StepLog, make_event: Callable[[], Event], pinned: bool = True) -> None:
        self._log = log
        self._queue: deque[_Queued] = deque()
        self._free = deque(
            _Queued(make_event(), make_event(), torch.empty((), pin_memory=pinned), 0) for _ in range(AHEAD)
        )

    def begin(self) -> None:
        """See `Meter.begin`."""
        while self._queue and (self._queue[0].ended.query() or not self._free):
            self._tell()
        self._free[0].began.record()

    def end(self, loss: torch.Tensor, samples: int) -> None:
        """See `Meter.end`."""
        step = self._free.popleft()
        step.loss.copy_(loss.detach(), non_blocking=True)
        step.samples = samples
        step.ended.record()
        self._queue.append(step)

    def finish(self) -> None:
        """See `Meter.finish`."""
        while self._queue:
            self._tell()

    def _tell(self) -> None:
        """Tells the oldest step, once it has ended."""
        step = self._queue.popleft()
        step.ended.synchronize()
        self._free.append(step)
        self._log.add(step.loss.item(), step.samples, step.began.elapsed_time(step.ended))


def meter_for(device: torch.device, log: StepLog, timer_s: Callable[[], float]) -> Meter:
    """By marks on CUDA, by the clock elsewhere."""
    if device.type == "cuda":
        return EventMeter(log, lambda: torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]  # its own
    return HostMeter(log, timer_s)
