"""What clients are told while a round goes on, when it ends, and what is in its mean then: on a virtual clock."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import torch
from e2e.waiting import until
from unit.server.coordination.phase_kit import SAMPLES, Clients

from fedstep.common.errors import PreconditionError
from fedstep.server.aggregation.mean import WeightedMean
from fedstep.server.coordination import intake
from fedstep.server.coordination.executors import Executor
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.trained import Trained
from fedstep.simulation.virtual_loop import run_virtual
from fedstep.v1 import fleet_pb2 as pb

T = TypeVar("T")

STEPS_S = {"a": 0.1, "b": 0.11, "slow": 3.0}


def run(script: Callable[[Clients], Coroutine[Any, Any, T]], *names: str) -> T:
    """Runs a script with these clients on a virtual clock."""

    async def main() -> T:
        clients = Clients()
        await clients.join(*names)
        return await script(clients)

    return run_virtual(main())


def test_a_client_that_will_miss_sends_what_it_has_in_time_and_it_counts_by_its_steps() -> None:
    async def script(clients: Clients) -> None:
        mean = WeightedMean(2)
        phase = clients.phase(2, 10.0, mean)
        work = clients.begin(phase, steps=100)
        async with asyncio.TaskGroup() as group:
            fast = group.create_task(clients.train(work["fast"], 0.01, (8.0, 8.0)))
            slow = group.create_task(clients.train(work["slow"], 0.2, (4.0, 4.0)))
            await phase.wait()
            assert clients.now_s() == pytest.approx(9.4, abs=0.2)  # all have answered: before the deadline
        assert fast.result() == 100
        assert slow.result() == 47
        assert [a.status for a in phase.assignments] == [Status.ACCEPTED] * 2
        share = 0.47
        length = (1 + share * share) / (1 + share)
        expected = length * (8.0 + 4.0) / (1 + share)
        assert mean.finish().tolist() == pytest.approx([expected] * 2)
        assert Trained(phase.assignments).partial == 1
        (event,) = phase.events
        assert (event.kind, event.details["client"], event.details["deadline_s"]) == (
            "client_told_to_send",
            "slow",
            10.0,
        )
        assert event.details["projected_finish_s"] == pytest.approx(20, abs=0.3)
        assert event.details["steps"] < event.details["steps_due"] == 100

    run(script, "fast", "slow")


def test_one_that_speeds_up_again_is_not_told_anything() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(1, 10.0)
        work = clients.begin(phase, steps=50)

        async def train() -> None:
            for step in range(50):
                await asyncio.sleep(0.4 if step < 20 else 0.02)
                clients.report(work["a"], step, 0.4 if step < 20 else 0.02)
            await clients.push(work["a"], (1.0, 1.0), 50)

        training = asyncio.create_task(train())
        await asyncio.sleep(7.9)
        assert phase.events == []  # a projection of 20 s, and time left to change it
        await phase.wait()
        await training
        assert phase.events == []
        assert Trained(phase.assignments).partial == 0

    run(script, "a")


def test_a_silent_client_is_told_when_it_matters_and_the_round_ends_at_its_deadline() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(2, 10.0)
        work = clients.begin(phase)
        waiting = asyncio.create_task(phase.wait())
        await clients.push(work["good"], (1.0, 1.0), 100)
        await asyncio.sleep(8.4)
        assert clients.told("silent") == []
        await asyncio.sleep(0.2)
        (told,) = clients.told("silent")
        assert (told.kind, told.ref) == (pb.DIRECTIVE_KIND_STOP_AND_SEND, work["silent"].ref)
        await waiting
        assert clients.now_s() == pytest.approx(10.0, abs=0.01)
        (dismissed,) = clients.told("silent")
        assert dismissed.kind == pb.DIRECTIVE_KIND_ABANDON
        assert [a.status for a in phase.assignments] == [Status.ACCEPTED, Status.LATE]

    run(script, "good", "silent")


def test_who_had_nothing_yet_when_it_was_told_to_send_has_no_fault_and_who_just_leaves_has() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(3, 10.0)
        work = clients.begin(phase)
        waiting = asyncio.create_task(phase.wait())
        abandoned = pb.Outcome(status=pb.OUTCOME_STATUS_ABANDONED, message="no step was taken")
        phase.take_outcome(work["leaves"], abandoned)
        await clients.push(work["good"], (1.0, 1.0), 100)
        await asyncio.sleep(9.0)
        assert work["nothing"].told
        phase.take_outcome(work["nothing"], abandoned)
        await waiting
        assert [work[name].status for name in ("leaves", "nothing")] == [Status.FAILED, Status.ABANDONED]
        assert [a.member.name for a in phase.faults] == ["leaves"]
        assert work["nothing"].note.startswith("it had nothing yet when it was told")

    run(script, "good", "leaves", "nothing")


def test_a_slow_connection_is_allowed_for() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(1, 10.0, upload_s=lambda member, size: 4.0 if size == 8 else 0.0)
        work = clients.begin(phase, steps=100)

        async def train() -> None:
            step = 0
            while not any(d.kind == pb.DIRECTIVE_KIND_STOP_AND_SEND for d in clients.told("a")):
                await asyncio.sleep(0.1)
                clients.report(work["a"], step, 0.1)
                step += 1
            await asyncio.sleep(4.0)
            await clients.push(work["a"], (1.0, 1.0), step)

        async with asyncio.TaskGroup() as group:
            group.create_task(train())
            await phase.wait()
        assert [a.status for a in phase.accepted] == [Status.ACCEPTED]
        assert clients.now_s() < 10.0
        assert Trained(phase.assignments).partial == 1

    run(script, "a")


def test_a_round_is_put_off_within_what_its_selection_allows() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(2, 10.0, latest_s=14.0)
        work = clients.begin(phase, steps=30)

        async def train(assignment: OpenAssignment) -> int:
            await asyncio.sleep(8.0)  # the model's way
            return await clients.train(assignment, 0.1)

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(train(assignment)) for assignment in work.values()]
            await phase.wait()
        assert [task.result() for task in both] == [30, 30]
        assert 10.0 < clients.now_s() < 14.0
        assert {e.kind for e in phase.events} == {"round_put_off"}
        assert {name for e in phase.events for name in e.details["clients"]} == {"a", "b"}
        assert all(10.0 < float(e.details["deadline_s"]) <= 14.0 for e in phase.events)

    run(script, "a", "b")


def test_a_round_is_not_put_off_by_next_to_nothing() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(3, 1.0, latest_s=1.25)
        work = clients.begin(phase, steps=90)
        async with asyncio.TaskGroup() as group:
            for assignment in work.values():  # at 0.927 s and a margin of 0.1 s: 27 ms beyond the end
                group.create_task(clients.train(assignment, 0.0103))
            await phase.wait()
        assert clients.now_s() <= 1.0
        assert {e.kind for e in phase.events} == {"client_told_to_send"}

    run(script, "a", "b", "c")


def test_one_event_says_for_whom_a_round_is_put_off_and_all_that_run_are_told() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(4, 10.0, latest_s=14.0)
        work = clients.begin(phase, steps=30)
        waiting = asyncio.create_task(phase.wait())
        await asyncio.sleep(8.0)
        for name, step_s, count in (("early", 0.1, 25), ("a", 0.1, 1), ("b", 0.11, 1)):
            clients.report(work[name], 0, step_s, count)
        await until(lambda: phase.events, "it is put off")
        assert [(e.kind, e.details["clients"]) for e in phase.events] == [("round_put_off", ["a", "b"])]
        (reason,) = {directive.reason for name in work for directive in clients.told(name)}
        assert reason == phase.events[0].text
        assert "is put off from 10 s to 11.7 s, when a, b will be done." in reason
        waiting.cancel()

    run(script, "early", "a", "b", "hopeless")


@pytest.mark.parametrize("open_end", [True, False])
def test_a_round_whose_clients_nobody_knew_does_not_wait_for_one_that_is_far_slower(open_end: bool) -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(3, 1000.0, quorum=2, open_end=open_end)
        work = clients.begin(phase, steps=20)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(clients.train(work[name], took_s)) for name, took_s in STEPS_S.items()]
            await phase.wait()
            now_s = clients.now_s()
        assert [task.result() for task in tasks][:2] == [20, 20]
        if open_end:
            assert 2.2 <= now_s < 3.0
            assert [e.kind for e in phase.events] == ["round_ended_early"]
            assert phase.events[0].details["left"] == ["slow"]
        else:
            assert now_s == pytest.approx(60.0)

    run(script, *STEPS_S)


def test_a_round_that_was_put_off_ends_then_whoever_is_missing() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(1, 10.0, latest_s=14.0)
        work = clients.begin(phase, steps=30)
        waiting = asyncio.create_task(phase.wait())
        await asyncio.sleep(8.0)
        clients.report(work["a"], 0, 0.1, count=2)
        await asyncio.sleep(1.0)  # and falls silent
        await waiting
        assert clients.now_s() <= 14.0 + 0.01
        kinds = [d.kind for d in clients.told("a")]
        assert kinds[0] == pb.DIRECTIVE_KIND_EXTEND
        assert kinds[-1] == pb.DIRECTIVE_KIND_ABANDON

    run(script, "a")


def test_who_was_away_when_it_was_told_hears_it_on_its_return() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(1, 10.0)
        clients.begin(phase)
        member = clients.members["a"]
        waiting = asyncio.create_task(phase.wait())
        await clients.fleet.left(member, member.stream)
        await asyncio.sleep(9.0)
        assert phase.events
        await clients.join("a")
        (told,) = clients.told("a")
        assert told.kind == pb.DIRECTIVE_KIND_STOP_AND_SEND
        await waiting

    run(script, "a")


def test_enough_updates_end_the_round_and_the_rest_is_abandoned() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(1, 10.0)
        work = clients.begin(phase)
        waiting = asyncio.create_task(phase.wait())
        await clients.push(work["a"], (1.0, 1.0), 100)
        await waiting
        assert clients.now_s() == 0.0
        assert [d.kind for d in clients.told("b")] == [pb.DIRECTIVE_KIND_ABANDON]
        assert [a.status for a in phase.assignments] == [Status.ACCEPTED, Status.ABANDONED]

    run(script, "a", "b")


async def test_a_round_does_not_wait_for_an_update_behind_other_work() -> None:
    """The executor is busy with another study's model: what has not reached the sum by the deadline does not."""
    clients, busy = Clients(), threading.Event()
    await clients.join("a")
    mean, compute = WeightedMean(2), Executor("test", 1)
    phase = clients.phase(1, 0.2, mean, compute)
    other = asyncio.create_task(compute.run(busy.wait))
    try:
        work = clients.begin(phase)
        pushing = asyncio.create_task(clients.push(work["a"], (1.0, 1.0), 100))
        async with asyncio.timeout(30):
            await phase.wait()
        assert not busy.is_set()
        assert work["a"].status is Status.LATE
        busy.set()
        assert isinstance(await pushing, PreconditionError)
        assert mean.count == 0
    finally:
        busy.set()
        await other
        compute.shut_down()


async def test_an_update_that_has_reached_the_sum_counts_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "_REST_S", 0.0)
    clients, adding, go_on = Clients(), threading.Event(), threading.Event()

    class Slow(WeightedMean):
        def add(self, update: torch.Tensor, *arguments: Any) -> None:
            adding.set()
            go_on.wait(30)
            super().add(update, *arguments)

    await clients.join("a")
    mean, compute = Slow(2), Executor("test", 1)
    phase = clients.phase(1, 0.2, mean, compute)
    try:
        work = clients.begin(phase)
        pushing = asyncio.create_task(clients.push(work["a"], (1.0, 1.0), 100))
        waiting = asyncio.create_task(phase.wait())
        await asyncio.to_thread(adding.wait, 30)
        await until(phase._over.is_set, "the deadline has passed")
        assert not waiting.done()
        go_on.set()
        await waiting
        assert await pushing is None
        assert work["a"].status is Status.ACCEPTED
        assert (mean.count, work["a"].samples) == (1, SAMPLES)
    finally:
        go_on.set()
        compute.shut_down()


def test_an_update_of_work_that_was_called_off_is_refused_at_once() -> None:
    async def script(clients: Clients) -> None:
        phase = clients.phase(2, 10.0)
        work = clients.begin(phase)
        waiting = asyncio.create_task(phase.wait())
        await phase._intake.turn.acquire()
        pushing = asyncio.create_task(clients.push(work["a"], (1.0, 1.0), 100))
        await asyncio.sleep(1.0)
        phase.settle(work["a"], Status.DIVERGED, "its loss rose")
        phase._intake.turn.release()
        assert isinstance(await pushing, PreconditionError)
        assert clients.now_s() == 1.0
        await waiting

    run(script, "a", "b")
