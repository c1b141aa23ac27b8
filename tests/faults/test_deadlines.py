"""Rounds end in time with the most that time could buy: slow clients send what they have, late updates still count."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest
from e2e.inside import Inside, inside
from e2e.processes import Program, Programs
from e2e.raw import GOOD, RawClient, do_nothing, raw_client
from e2e.studies import spec
from e2e.tiny import SAMPLES as TINY_SAMPLES
from e2e.waiting import until
from faults.paced_task import SAMPLES as STEPS

from fedstep.common import wire
from fedstep.common.tasks import load_task
from fedstep.server.coordination.fleet import Member
from fedstep.server.storage.base import StudyState
from fedstep.v1 import fleet_pb2 as pb

PACED = Path(__file__).parent / "paced_task.py"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "data", tasks=[load_task(str(PACED))]) as running:
        yield running


def paced(programs: Programs, host: Inside, name: str, folder: Path, step_s: float = 0.0) -> Program:
    options = ("--option", f"folder={folder}", "--option", f"step_s={step_s}")
    return programs.client(host.address, name, *options, task=PACED)


async def member(host: Inside, name: str) -> Member:
    fleet = host.coordinator.parts.fleet
    await until(lambda: any(m.name == name for m in fleet.members()), f"{name} has joined")
    return next(m for m in fleet.members() if m.name == name)


async def test_a_slow_process_sends_what_it_has_before_the_deadline(host: Inside, tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        paced(programs, host, "fast", tmp_path)
        paced(programs, host, "slow", tmp_path, step_s=0.25)  # 16 s in all
        policy = {"min_clients": 2, "deadline": "10s", "quorum": 1.0}
        await host.create(spec(task="paced", round=policy, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (round_,) = await host.rounds("s")
    assert (round_.updates, round_.attempts, round_.metrics["partial_updates"]) == (2, 1, 1)
    (part,) = [a for a in await host.assignments("s", "slow") if a.work == "train"]
    assert part.status == "accepted"
    assert part.steps is not None
    assert 0 < part.metrics["steps"] == len(part.steps.loss) < STEPS
    assert part.metrics["steps"] == len((tmp_path / "slow.steps").read_text())
    (event,) = await host.events("s", "client_told_to_send")
    assert (event.details["client"], event.details["deadline_s"]) == ("slow", 10.0)
    assert event.details["projected_finish_s"] > 10.0
    assert "slow in round 0 of trial 0 would be done after" in event.text
    assert host.faults("slow") == 0


async def test_a_process_frozen_over_the_end_of_a_round_still_counts_in_the_next(host: Inside, tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        paced(programs, host, "a", tmp_path)
        frozen = paced(programs, host, "b", tmp_path)
        a, b = await member(host, "a"), await member(host, "b")
        (tmp_path / "b.hold").touch()
        policy = {"min_clients": 1, "deadline": "4s", "quorum": 0.5}
        await host.create(spec(task="paced", round=policy, budget={"rounds_per_trial": 3}))
        await until((tmp_path / "b.held").exists, "b is in the middle of its first step")
        frozen.send(signal.SIGSTOP)
        await until(lambda: a.updates_accepted, "a is done with round 0")
        (tmp_path / "a.hold").touch()
        await until(lambda: b.late, "round 0 is over")
        (tmp_path / "b.hold").unlink()
        frozen.send(signal.SIGCONT)
        await until(lambda: b.updates_accepted, "b's update has come")
        assert not b.late
        (tmp_path / "a.hold").unlink()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (taken,) = await host.events("s", "late_update_taken")
    assert (taken.details["client"], taken.details["made_in"]) == ("b", 0)
    assert taken.details["staleness"] == taken.details["round"] in (1, 2)
    (late,) = [x for x in await host.assignments("s", "b") if x.work == "train" and x.round == 0]
    assert late.status == "late"
    assert "what it sends yet is taken" in late.message
    rounds = await host.rounds("s")
    assert sum(r.metrics.get("late_updates", 0) for r in rounds) == 1
    whole = STEPS * sum("b" in r.cohort for r in rounds[1:])
    assert 0 < len((tmp_path / "b.steps").read_text()) - whole < STEPS  # it did not train on when it woke


async def test_work_that_nobody_will_use_stops_with_the_step_it_is_in(host: Inside, tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        paced(programs, host, "a", tmp_path)
        b = paced(programs, host, "b", tmp_path)
        a = await member(host, "a")
        await member(host, "b")
        (tmp_path / "b.hold").touch()
        policy = {"min_clients": 2, "cohort_size": 1, "over_selection": 2.0}
        await host.create(spec(task="paced", round=policy, budget={"rounds_per_trial": 1}))
        await until((tmp_path / "b.held").exists, "b is in the middle of its first step")
        await until(lambda: a.updates_accepted, "the round has its update")
        # It is asked to measure after it was told to stop: the message has come by then.
        await until(lambda: b.says("evaluating"), "b is asked to measure")
        (tmp_path / "b.hold").unlink()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        # What it trains next begins when what it trained before has ended.
        await host.create(spec(name="next", task="paced", round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("next")).state is StudyState.COMPLETED
    assert len((tmp_path / "b.steps").read_text()) == 1 + STEPS
    (told,) = await host.events("s", "clients_told_to_stop")
    assert told.details["clients"] == ["b"]


async def test_any_number_of_silent_clients_cost_a_round_its_deadline(host: Inside) -> None:
    """Forty that hang, one of them in the middle of its upload."""

    async def stop_half_way(client: RawClient, assignment: pb.Assignment) -> None:
        header = pb.UpdateHeader(
            session_id=client.session_id,
            ref=assignment.ref,
            checksum=bytes(16),
            payload_bytes=len(GOOD),
            summary=pb.TrainingSummary(samples=TINY_SAMPLES, steps=2, loss=0.5),
        )

        async def messages() -> AsyncIterator[bytes]:
            yield pb.PushUpdateRequest(header=header).SerializeToString()
            yield wire.frame(GOOD[: len(GOOD) // 2])
            await asyncio.Event().wait()

        await client.send(messages())

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(raw_client(host.address, "good"))
        await stack.enter_async_context(raw_client(host.address, "half-way", stop_half_way))
        for number in range(38):
            await stack.enter_async_context(raw_client(host.address, f"silent-{number}", do_nothing))
        policy = {"min_clients": 40, "deadline": "2s", "quorum": 0.01}
        study = {"round": policy, "budget": {"rounds_per_trial": 1}, "evaluation": {"cohort_size": 1}}
        await host.create(spec(**study))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (round_,) = await host.rounds("s")
    assert (round_.updates, len(round_.cohort)) == (1, 40)
    late = [a for a in await host.assignments("s") if a.status == "late"]
    assert len(late) == 39
    assert max(a.elapsed_s for a in late) <= 2.0 + 1.0


async def test_half_of_the_clients_being_silent_a_measurement_does_not_wait_for_its_own_deadline(host: Inside) -> None:
    async with AsyncExitStack() as stack:
        for name in ("a", "b"):
            await stack.enter_async_context(raw_client(host.address, name))
        for name in ("c", "d"):
            silent = await stack.enter_async_context(raw_client(host.address, name, do_nothing))
            silent.on_evaluate = do_nothing
        study = {"round": {"min_clients": 4, "deadline": "1s", "quorum": 0.5}, "budget": {"rounds_per_trial": 1}}
        await host.create(spec(**study, evaluation={"deadline": "600s"}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (round_,) = await host.rounds("s")
    assert sorted(round_.evaluators) == ["a", "b"]
    late = await host.events("s", "client_late")
    assert {(e.details["client"], e.details["work"]) for e in late} >= {("c", "evaluate"), ("d", "evaluate")}


async def test_where_late_updates_are_dropped_the_client_is_told_to_stop(host: Inside) -> None:
    policy = {"min_clients": 2, "deadline": "1s", "late_updates": "drop"}
    async with raw_client(host.address, "good"), raw_client(host.address, "late", do_nothing) as late:
        await host.create(spec(round=policy, budget={"rounds_per_trial": 2}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        first = late.trainings()[0]
        kinds = [d.kind for d in late.directives if d.ref == first.ref]
        assert kinds == [pb.DIRECTIVE_KIND_STOP_AND_SEND, pb.DIRECTIVE_KIND_ABANDON]
        with pytest.raises(grpc.aio.AioRpcError, match="no longer wanted"):
            await late.push(first.ref)
    assert await host.events("s", "late_update_taken") == []
    assert all("late_updates" not in r.metrics for r in await host.rounds("s"))


async def test_late_work_is_called_off_where_its_client_is_needed(host: Inside) -> None:
    """Two clients must train; one hangs. The second round asks both again, and not a third is waited for."""
    policy = {"min_clients": 2, "deadline": "1s"}
    async with raw_client(host.address, "good"), raw_client(host.address, "hangs", do_nothing) as hangs:
        await host.create(spec(round=policy, budget={"rounds_per_trial": 2}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [len(r.cohort) for r in await host.rounds("s")] == [2, 2]
    assert len(hangs.trainings()) == 2


async def test_a_restart_loses_late_updates_and_nothing_else(tmp_path: Path) -> None:
    policy = {"min_clients": 1, "deadline": "1s", "wait_for_clients": "60s"}
    async with (
        inside(tmp_path) as first,
        raw_client(first.address, "good"),
        raw_client(first.address, "late", do_nothing) as late,
    ):
        await first.create(spec(round=policy, budget={"rounds_per_trial": 30}))
        await first.until_event("s", "client_late")
        stale = late.trainings()[0].ref
    async with inside(tmp_path) as second, raw_client(second.address, "late") as late:
        with pytest.raises(grpc.aio.AioRpcError, match="no longer wanted"):
            await late.push(stale)
        async with raw_client(second.address, "good"):
            assert (await second.until_over("s")).state is StudyState.COMPLETED
        assert len(await second.rounds("s")) == 30
        assert await second.events("s", "late_update_taken") == []
