"""A machine made slow: how long it takes, what it says of it, and that it can be told to stop meanwhile."""

import math
import threading
import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedstep.client.bucket import Bucket
from fedstep.client.slow_work import SlowWork
from fedstep.client.work import AbandonedError, Control, Evaluated, Instruction, Job, Model, StepSink, Trained
from fedstep.common.handicap import Handicap
from fedstep.common.pauses import Pauses
from fedstep.common.tensors import Manifest

JOB = Job("a job", Model(Manifest.of({}), torch.empty(0)), {})


class Time:
    """A clock that moves when somebody works or rests."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Restful(Control):
    """Rests on a clock of its own."""

    def rest(self, seconds: float) -> None:
        assert isinstance(self.clock, Time)
        self.clock.now_s += max(0.0, seconds)


class Quick:
    """Steps of a second, a measurement of two."""

    def __init__(self, clock: Time, losses: tuple[float, ...] = (1.0, 1.0, 1.0)) -> None:
        self.clock = clock
        self.losses = losses

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        began_s = self.clock()
        for loss in self.losses:
            self.clock.now_s += 1
            steps.step(loss, 4, 1000.0)
        return Trained(torch.empty(0), 4, len(self.losses), 1.0, self.clock() - began_s)

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        self.clock.now_s += 2
        return Evaluated({"loss": 1.0}, 4)


class Steps:
    def __init__(self) -> None:
        self.rows: list[tuple[float, int, float]] = []

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        self.rows.append((loss, samples, step_ms))


def trained(handicap: Handicap, losses: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[list[float], float]:
    """Milliseconds of every step as reported, and seconds that the training says it took."""
    clock, steps = Time(), Steps()
    found = SlowWork(Quick(clock, losses), handicap, clock).train(JOB, Restful(math.inf, clock=clock), steps)
    return [step_ms for _, _, step_ms in steps.rows], found.train_time_s


def test_every_step_takes_so_many_times_as_long_and_says_so() -> None:
    assert trained(Handicap(slowdown=5)) == ([pytest.approx(5000)] * 3, pytest.approx(15))


def test_a_stall_holds_up_the_step_that_it_falls_into() -> None:
    assert trained(Handicap(stalls=Pauses.every(10, 8.5))) == (pytest.approx([1000, 9500, 1000]), 11.5)


def test_a_step_that_is_not_a_number_is_told_at_once() -> None:
    assert trained(Handicap(slowdown=5), (1.0, math.nan))[0] == pytest.approx([5000, 1000])


def test_a_measurement_takes_longer_too() -> None:
    clock = Time()
    SlowWork(Quick(clock), Handicap(slowdown=5), clock).evaluate(JOB, Restful(math.inf, clock=clock))
    assert clock() == pytest.approx(110)


def test_told_to_abandon_it_waits_no_longer_and_tells_of_no_step() -> None:
    """It would be a thousand seconds, and a test ends after two minutes."""
    clock, control, steps = Time(), Control(math.inf), Steps()
    work = SlowWork(Quick(clock, (1.0,)), Handicap(slowdown=1000), clock)

    def train() -> None:
        with pytest.raises(AbandonedError, match="enough"):
            work.train(JOB, control, steps)

    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    control.tell(Instruction.ABANDON, "enough")
    thread.join()
    assert steps.rows == []


def test_told_to_send_what_it_has_it_takes_the_step_under_way_to_its_end() -> None:
    clock, control = Time(), Control(math.inf)
    control.tell(Instruction.STOP_AND_SEND, "enough")
    began_s = time.monotonic()
    steps = Steps()
    SlowWork(Quick(clock, (1.0,)), Handicap(slowdown=1.2), time.monotonic).train(JOB, control, steps)
    assert time.monotonic() - began_s >= 0.19
    ((_, _, step_ms),) = steps.rows
    assert step_ms >= 1199


def test_a_measurement_that_is_called_off_while_it_waits_sends_nothing() -> None:
    clock, control = Time(), Control(math.inf)
    work = SlowWork(Quick(clock), Handicap(slowdown=1000), clock)
    said: list[str] = []

    def measure() -> None:
        try:
            work.evaluate(JOB, control)
        except AbandonedError as error:
            said.append(error.message)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    control.tell(Instruction.ABANDON, "enough")
    thread.join()
    assert said == ["enough"]


def rested(act: Callable[[Control], None], deadline_s: float) -> Control:
    control = Control(time.monotonic() + deadline_s)
    thread = threading.Thread(target=control.rest, args=(3600,), daemon=True)
    thread.start()
    act(control)
    thread.join()
    return control


def test_nobody_rests_beyond_the_deadline() -> None:
    control = rested(lambda control: None, deadline_s=0.01)
    with pytest.raises(AbandonedError, match="ran out of time"):
        control.go_on()


@given(st.floats(1, 1e9), st.lists(st.tuples(st.integers(0, 1 << 22), st.floats(0, 10)), max_size=20))
def test_bytes_are_never_through_faster_than_the_rate(rate: float, claims: list[tuple[int, float]]) -> None:
    clock = Time()
    bucket, began_s, total = Bucket(rate, clock), clock(), 0
    for size, idle_s in claims:
        wait_s = bucket.claim(size)
        total += size
        assert clock() + wait_s - began_s >= total / rate * (1 - 1e-9) - 1e-6
        assert wait_s <= total / rate * (1 + 1e-9) + 1e-6
        clock.now_s += idle_s


def test_a_bucket_that_stood_idle_allows_no_burst_and_one_without_a_bound_no_wait() -> None:
    clock = Time()
    bucket = Bucket(100, clock)
    assert bucket.claim(50) == 0.5
    clock.now_s += 60
    assert [bucket.claim(100), bucket.claim(100)] == [1, 2]
    assert Bucket(math.inf, clock).claim(1 << 30) == 0
