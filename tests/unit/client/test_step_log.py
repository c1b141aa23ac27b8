"""Steps timed on a device that works behind the CPU's back. The device is one that the test moves on."""

import math

import pytest
import torch

from fedstep.client.step_log import AHEAD, EventMeter, StepLog
from fedstep.client.work import DivergedError


class Sink:
    def __init__(self) -> None:
        self.rows: list[tuple[float, int, float]] = []

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        self.rows.append((loss, samples, step_ms))


class Device:
    """A queue of marks, which it comes to one after the other."""

    def __init__(self) -> None:
        self.queued = 0
        self.done = 0
        self.waited: list[int] = []

    def event(self) -> "Mark":
        return Mark(self)


class Mark:
    def __init__(self, device: Device) -> None:
        self._device = device
        self.place = 0

    def record(self) -> None:
        self._device.queued += 1
        self.place = self._device.queued

    def query(self) -> bool:
        return self._device.done >= self.place

    def synchronize(self) -> None:
        if not self.query():
            self._device.waited.append(self.place)
            self._device.done = self.place

    def elapsed_time(self, end_event: "Mark") -> float:
        return 10.0 * (end_event.place - self.place)


def run(meter: EventMeter, losses: list[float]) -> None:
    for loss in losses:
        meter.begin()
        meter.end(torch.tensor(loss), 4)


def test_nothing_is_waited_for_while_the_device_is_not_far_behind() -> None:
    device, sink = Device(), Sink()
    meter = EventMeter(StepLog(sink), device.event, pinned=False)
    run(meter, [1.0, 2.0, 3.0])
    assert (sink.rows, device.waited) == ([], [])
    device.done = 4  # of two steps, each with a mark at both ends
    run(meter, [4.0])
    assert sink.rows == [(1.0, 4, 10.0), (2.0, 4, 10.0)]
    assert not device.waited
    meter.finish()
    assert [loss for loss, _, _ in sink.rows] == [1.0, 2.0, 3.0, 4.0]


def test_the_cpu_runs_no_further_ahead_than_that() -> None:
    device, sink = Device(), Sink()
    meter = EventMeter(StepLog(sink), device.event, pinned=False)
    run(meter, [float(step) for step in range(AHEAD)])
    assert not device.waited
    run(meter, [9.0])
    assert device.waited == [2]  # the end of the first step, and of no other
    assert [loss for loss, _, _ in sink.rows] == [0.0]


def test_a_loss_that_is_not_a_number_is_told_with_its_own_step() -> None:
    device, sink = Device(), Sink()
    meter = EventMeter(StepLog(sink), device.event, pinned=False)
    run(meter, [1.0, math.nan, 3.0])
    with pytest.raises(DivergedError, match="The loss became nan at step 1"):
        meter.finish()
    assert len(sink.rows) == 2


def test_the_last_pass_is_what_saw_every_sample() -> None:
    log = StepLog(Sink())
    assert math.isnan(log.loss_of_last_pass(5))
    for loss in (8.0, 4.0, 2.0, 1.0):
        log.add(loss, 2, 1.0)
    assert log.loss_of_last_pass(2) == 1.0
    assert log.loss_of_last_pass(3) == 1.5
    assert log.loss_of_last_pass(100) == 3.75
