"""What goes on in a study at this moment, over sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent

from fedstep.server.api.progress import ProgressFeed
from fedstep.server.coordination.parts import Parts
from fedstep.v1 import progress_pb2 as pb
from fedstep.v1 import study_pb2_grpc


def closed() -> TinyWork:
    """A client that waits before its second step."""
    work = TinyWork()
    work.gate.clear()
    return work


@asynccontextmanager
async def watching(
    host: Inside, name: str = "s", interval_s: float = 0.25
) -> AsyncIterator[AsyncIterator[pb.Snapshot]]:
    """The snapshots of a study."""
    async with grpc.aio.insecure_channel(host.address) as channel:
        stub: Any = study_pb2_grpc.StudyServiceStub(channel)
        request = pb.WatchProgressRequest(name=name)
        request.interval.FromTimedelta(timedelta(seconds=interval_s))
        call = stub.WatchProgress(request, timeout=60)

        async def snapshots() -> AsyncIterator[pb.Snapshot]:
            async for answer in call:
                yield answer.snapshot

        try:
            yield snapshots()
        finally:
            call.cancel()


async def first(snapshots: AsyncIterator[pb.Snapshot], such: Callable[[pb.Snapshot], bool]) -> pb.Snapshot:
    async for snapshot in snapshots:
        if such(snapshot):
            return snapshot
    raise AssertionError("the watching ended before it came to this")


def states(snapshot: pb.Snapshot) -> dict[str, str]:
    """Of the clients of the one phase there is."""
    return {
        one.client_name: pb.WorkState.Name(one.state).removeprefix("WORK_STATE_")
        for phase in snapshot.phases
        for one in phase.clients
    }


def told(snapshot: pb.Snapshot) -> int:
    """Local steps, of all clients of the one phase there is."""
    return sum(len(one.losses) for phase in snapshot.phases for one in phase.clients)


async def test_a_round_is_seen_while_it_goes_on(tmp_path: Path) -> None:
    slow = closed()
    async with inside(tmp_path) as host, tiny_agent(host.address, "a"), tiny_agent(host.address, "b", slow):
        await host.create(spec(round={"min_clients": 2}, hyperparameters={"local_epochs": 2}))
        async with watching(host) as snapshots:
            # a's update and its last steps come by two streams, in any order.
            seen = await first(snapshots, lambda s: states(s) == {"b": "TRAINING", "a": "DONE"} and told(s) == 3)
            assert (seen.study, seen.state, seen.task, seen.tuner) == ("s", "running", "tiny", "random")
            assert (seen.metric, seen.by_trials) == ("accuracy", True)
            fleet = seen.fleet
            assert (fleet.connected, fleet.working, fleet.lost_touch) == (2, 1, 0)
            assert (fleet.for_study, fleet.needed) == (2, 2)
            (phase,) = seen.phases
            assert (phase.kind, phase.trial, phase.round, phase.attempt) == (pb.PHASE_KIND_TRAIN, 0, 0, 1)
            assert (phase.wanted, phase.taken, phase.asked, phase.failed) == (2, 1, 2, 0)
            assert phase.deadline.ToTimedelta() == timedelta(seconds=30)
            assert (phase.first_loss, phase.loss) == (1.0, 0.75)
            b, a = phase.clients
            assert (b.steps, b.steps_asked, b.step_ms, [*b.losses]) == (1, 2, 2.0, [1.0])
            assert (a.steps, a.steps_asked, [*a.losses]) == (2, 2, [1.0, 0.5])
            assert b.HasField("finish")
            assert a.HasField("finish")
            (arm,) = seen.arms
            assert (arm.number, arm.state, arm.rounds, arm.rounds_asked) == (0, "running", 0, 2)
            assert [*arm.hyperparameters] == ["lr"]
            assert not seen.HasField("best")
            assert not seen.HasField("time_left")
            slow.gate.set()
            last = [snapshot async for snapshot in snapshots][-1]
        assert last.state == "completed"
        assert not last.phases
        assert (last.best.number, last.best.value, [*last.best.values]) == (0, 0.5, [0.5, 0.5])
        spent = {one.kind: (one.spent, one.limit) for one in last.spent}
        assert spent["rounds"] == (2, 2)
        assert spent["trials"] == (1, 1)
        assert spent["client_rounds"] == (4, 0)
        assert spent["payload_bytes"][0] > 0


async def test_after_a_round_it_is_said_how_long_the_others_will_take(tmp_path: Path) -> None:
    work = TinyWork()
    async with inside(tmp_path) as host, tiny_agent(host.address, "a", work):
        await host.create(spec(budget={"rounds_per_trial": 200}))
        await host.until_event("s", "round_committed")
        work.gate.clear()
        async with watching(host) as snapshots:
            seen = await first(snapshots, lambda s: bool(s.phases) and s.HasField("time_left"))
            left = [d.ToTimedelta() for d in (seen.time_left.least, seen.time_left.about, seen.time_left.most)]
            assert timedelta() < left[0] <= left[1] <= left[2]
            assert seen.best.number == 0
        await host.stop("s")
        work.gate.set()
        await host.until_over("s")


async def test_a_buffer_is_seen_while_it_fills(tmp_path: Path) -> None:
    slow = closed()
    rounds = {"min_clients": 2, "mode": "buffered", "cohort_size": 2, "buffer_size": 2}
    async with inside(tmp_path) as host, tiny_agent(host.address, "b", slow):
        await host.create(spec(round=rounds))
        async with tiny_agent(host.address, "c", slow), watching(host) as snapshots:
            seen = await first(snapshots, lambda s: len(states(s)) == 2)
            assert [phase.kind for phase in seen.phases] == [pb.PHASE_KIND_BUFFER]
            assert (seen.phases[0].wanted, seen.phases[0].taken) == (2, 0)
            slow.gate.set()
            last = [snapshot async for snapshot in snapshots][-1]
        assert last.state == "completed"


async def test_of_a_study_that_has_ended_there_is_one_snapshot(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, tiny_agent(host.address, "a"):
        await host.create(spec(budget={"final_rounds": 3}))
        await host.until_over("s")
        async with watching(host) as snapshots:
            (only,) = [snapshot async for snapshot in snapshots]
        assert (only.state, only.best.number, only.arm_count) == ("completed", 0, 1)
        assert (only.best.rounds, only.best.rounds_asked) == (5, 5)


async def test_a_study_that_is_not_there_is_refused(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, watching(host, "nobody") as snapshots:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(snapshots)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_any_interval_is_taken_into_bounds(tmp_path: Path) -> None:
    slow = closed()
    async with inside(tmp_path) as host, tiny_agent(host.address, "a", slow):
        await host.create(spec())
        for interval_s in (-1e9, 0.0, 1e10):
            async with watching(host, interval_s=interval_s) as snapshots:
                assert (await anext(snapshots)).study == "s"


class Still:
    """A clock that stands still until it is moved."""

    def __init__(self, parts: Parts) -> None:
        self.at_s = parts.clock.monotonic()
        self.now = parts.clock.now

    def monotonic(self) -> float:
        return self.at_s


async def test_all_who_watch_are_sent_the_same_snapshot(tmp_path: Path) -> None:
    slow = closed()
    async with inside(tmp_path) as host, tiny_agent(host.address, "a", slow):
        await host.create(spec())
        assert host.coordinator.studies is not None
        clock = Still(host.coordinator.parts)
        feed = ProgressFeed(host.coordinator.studies, replace(host.coordinator.parts, clock=clock))
        one, other = [await anext(feed.watch("s", 0.25)) for _ in range(2)]
        assert one is other
        clock.at_s += 60.0
        assert await anext(feed.watch("s", 0.25)) is not one
