"""Step reports: bounded, batched, urgent where they must be, and cheap."""

import math
import threading

from fedstep.client import reporter as module
from fedstep.client.reporter import KEPT_STEPS, Reporter
from fedstep.v1 import fleet_pb2 as pb

REF = pb.AssignmentRef(assignment_id="a", attempt=3)


class Wakes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_steps_come_out_in_columns_and_numbered() -> None:
    reporter = Reporter(REF, Wakes(), max_steps=3)
    for number in range(5):
        reporter.step(number / 2, number + 1, 10.0 * number)
    first, second = reporter.take(), reporter.take()
    assert first is not None
    assert second is not None
    assert first.ref == REF
    assert (first.first_step, list(first.loss), list(first.samples), list(first.step_ms)) == (
        0,
        [0.0, 0.5, 1.0],
        [1, 2, 3],
        [0.0, 10.0, 20.0],
    )
    assert (second.first_step, list(second.samples)) == (3, [4, 5])
    assert reporter.take() is None


def test_the_loop_is_woken_once_a_batch() -> None:
    wakes = Wakes()
    reporter = Reporter(REF, wakes, max_steps=10)
    for _ in range(9):
        reporter.step(1.0, 1, 1.0)
    assert (wakes.count, reporter.urgent) == (0, False)
    for _ in range(25):
        reporter.step(1.0, 1, 1.0)
    assert (wakes.count, reporter.urgent) == (1, True)
    while reporter.take() is not None:
        pass
    assert not reporter.urgent
    for _ in range(10):
        reporter.step(1.0, 1, 1.0)
    assert wakes.count == 2


def test_a_loss_that_is_not_a_number_is_urgent() -> None:
    for loss in (math.nan, math.inf):
        wakes = Wakes()
        reporter = Reporter(REF, wakes, max_steps=10)
        reporter.step(loss, 1, 1.0)
        assert (wakes.count, reporter.urgent) == (1, True)


def test_memory_is_bounded_and_the_gap_shows() -> None:
    reporter = Reporter(REF, Wakes(), max_steps=100)
    extra = 250
    for number in range(KEPT_STEPS + extra):
        reporter.step(float(number), 1, 1.0)
    assert reporter.pending == KEPT_STEPS
    report = reporter.take()
    assert report is not None
    assert report.first_step == extra
    assert report.loss[0] == extra


def test_nothing_is_lost_between_two_threads() -> None:
    reporter = Reporter(REF, Wakes(), max_steps=7)
    count = 5000
    thread = threading.Thread(target=lambda: [reporter.step(float(n), 1, 1.0) for n in range(count)])
    thread.start()
    losses: list[float] = []
    while thread.is_alive() or reporter.pending:
        report = reporter.take()
        if report is not None:
            assert report.first_step == len(losses)
            losses += report.loss
    thread.join()
    assert losses == [float(n) for n in range(count)]


def test_a_step_costs_no_call_into_the_event_loop() -> None:
    """What makes it cheap: between two takes the loop is woken once, however many steps there are."""
    wakes = Wakes()
    reporter = Reporter(REF, wakes, max_steps=1)
    for _ in range(module.KEPT_STEPS):
        reporter.step(1.0, 1, 1.0)
    assert wakes.count == 1
