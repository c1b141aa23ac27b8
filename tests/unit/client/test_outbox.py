"""The order in which things are told, and what outlives a cut."""

import asyncio
import math

from fedstep.client.outbox import Outbox
from fedstep.v1 import fleet_pb2 as pb


def ref(name: str) -> pb.AssignmentRef:
    return pb.AssignmentRef(assignment_id=name)


def kinds(outbox: Outbox, everything: bool = False) -> list[str]:
    told = [message.WhichOneof("message") or "" for message in outbox.due(everything)]
    outbox.written()
    return told


async def test_steps_wait_for_their_time_unless_urgent() -> None:
    outbox = Outbox(lambda: 0.0)
    outbox.begin(100)
    reporter = outbox.reporter(ref("a"))
    reporter.step(1.0, 1, 1.0)
    assert kinds(outbox) == []
    assert kinds(outbox, everything=True) == ["step_report"]
    reporter.step(math.nan, 1, 1.0)
    await asyncio.sleep(0)
    assert outbox.changed.is_set()
    assert kinds(outbox) == ["step_report"]


async def test_steps_are_told_before_the_outcome_they_led_to() -> None:
    outbox = Outbox(lambda: 0.0)
    outbox.begin(100)
    reporter = outbox.reporter(ref("a"))
    reporter.step(1.0, 1, 1.0)
    await outbox.close(reporter, wait_s=0.0)  # nobody writes: it does not wait for ever
    outbox.put(pb.Outcome(ref=ref("a")))
    assert kinds(outbox) == ["step_report", "outcome"]
    assert not outbox.reporting


async def test_closing_waits_until_the_steps_are_told() -> None:
    outbox = Outbox(lambda: 0.0)
    outbox.begin(100)
    reporter = outbox.reporter(ref("a"))
    reporter.step(1.0, 1, 1.0)
    closing = asyncio.create_task(outbox.close(reporter, wait_s=60))
    await outbox.changed.wait()
    while not closing.done():
        kinds(outbox)
        await asyncio.sleep(0)
    assert reporter.pending == 0


async def test_closing_does_not_wait_while_nobody_listens() -> None:
    outbox = Outbox(lambda: 0.0)
    reporter = outbox.reporter(ref("a"))
    reporter.step(1.0, 1, 1.0)
    await outbox.close(reporter, wait_s=60)
    assert outbox.reporting  # kept for the next session


async def test_an_outcome_that_could_not_be_written_stays() -> None:
    outbox = Outbox(lambda: 0.0)
    outbox.put(pb.Outcome(ref=ref("a")))
    next(iter(outbox.due(False)))  # the write failed: the rest is never asked for
    assert [r.assignment_id for r in outbox.unconfirmed()] == ["a"]
    assert kinds(outbox) == ["outcome"]


async def test_an_outcome_written_just_before_a_cut_is_told_again() -> None:
    now = 0.0
    outbox = Outbox(lambda: now)
    for name in ("old", "new"):
        outbox.put(pb.Outcome(ref=ref(name)))
        kinds(outbox)
        now += 4.0
    outbox.put(pb.Outcome(ref=ref("unwritten")))
    assert [r.assignment_id for r in outbox.unconfirmed()] == ["new", "unwritten"]
    outbox.forget()
    assert outbox.unconfirmed() == []


async def test_a_new_session_changes_how_large_reports_are() -> None:
    outbox = Outbox(lambda: 0.0)
    reporter = outbox.reporter(ref("a"))
    outbox.begin(2)
    for _ in range(5):
        reporter.step(1.0, 1, 1.0)
    assert kinds(outbox, everything=True) == ["step_report"] * 3
