"""Buffered rounds over real sockets: a slow process trains on through the ends of rounds, and its update counts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from e2e.inside import Inside, inside
from e2e.processes import Programs
from e2e.raw import do_nothing, raw_client
from e2e.studies import spec
from e2e.waiting import until
from faults.paced_task import SAMPLES as STEPS
from faults.test_deadlines import PACED, member, paced

from fedstep.common.tasks import load_task
from fedstep.server.storage.base import StudyState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "data", tasks=[load_task(str(PACED))]) as running:
        yield running


def buffered(**policy: Any) -> dict[str, Any]:
    return {"mode": "buffered", "min_clients": 2, "cohort_size": 2, "buffer_size": 1, "deadline": "60s", **policy}


async def test_a_slow_process_trains_on_through_the_ends_of_rounds_and_its_update_counts(
    host: Inside, tmp_path: Path
) -> None:
    with Programs(tmp_path / "logs") as programs:
        paced(programs, host, "fast", tmp_path)
        paced(programs, host, "slow", tmp_path)
        slow = await member(host, "slow")
        await member(host, "fast")
        (tmp_path / "slow.hold").touch()
        # Nobody measures: a client does not while it is in the middle of a step.
        trains_only = {"evaluation": {"cohort_size": 0}, "objective": {"metric": "train_loss", "direction": "minimize"}}
        await host.create(spec(task="paced", round=buffered(), budget={"rounds_per_trial": 60}, **trains_only))
        await until((tmp_path / "slow.held").exists, "slow is in the middle of its first step")
        await host.until_event("s", "round_committed", lambda event: event.details["round"] == 1)
        (tmp_path / "fast.hold").touch()
        await until((tmp_path / "fast.held").exists, "fast is in the middle of a step")
        assert len((tmp_path / "slow.steps").read_text()) == 1
        (tmp_path / "slow.hold").unlink()
        await until(lambda: slow.updates_accepted, "slow's update has come")
        (tmp_path / "fast.hold").unlink()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    rounds = await host.rounds("s")
    assert [r.updates >= 1 for r in rounds] == [True] * 60
    first = min((a for a in await host.assignments("s", "slow") if a.work == "train"), key=lambda a: a.round)
    assert (first.status, first.metrics["steps"]) == ("accepted", STEPS)
    assert first.metrics["staleness"] == first.round >= 2  # it was begun in round 0, and counts where it was taken
    assert await host.events("s", "client_told_to_send") == []
    assert host.faults("slow") == 0


async def test_at_the_end_of_its_arm_work_under_way_stops_with_the_step_it_is_in(host: Inside, tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        paced(programs, host, "a", tmp_path)
        b = paced(programs, host, "b", tmp_path)
        await member(host, "a")
        await member(host, "b")
        (tmp_path / "b.hold").touch()
        briefly = {"deadline": "1s"}  # b does not measure while it is in the middle of a step
        await host.create(spec(task="paced", round=buffered(), budget={"rounds_per_trial": 2}, evaluation=briefly))
        await until((tmp_path / "b.held").exists, "b is in the middle of its first step")
        # It is asked to measure after it was told to stop: the message has come by then.
        await until(lambda: b.says("round 1: evaluating"), "b is asked to measure")
        (tmp_path / "b.hold").unlink()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        # What it trains next begins when what it trained before has ended.
        await host.create(spec(name="next", task="paced", round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("next")).state is StudyState.COMPLETED
    assert len((tmp_path / "b.steps").read_text()) == 1 + STEPS
    (told,) = await host.events("s", "clients_told_to_stop")
    assert "b" in told.details["clients"]
    assert told.details["round"] == 1


async def test_any_number_of_silent_clients_cost_a_buffer_its_deadline(host: Inside) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(raw_client(host.address, "good"))
        for number in range(19):
            await stack.enter_async_context(raw_client(host.address, f"silent-{number}", do_nothing))
        policy = buffered(min_clients=20, cohort_size=20, buffer_size=1_000_000, deadline="2s", quorum=1e-6)
        await host.create(spec(round=policy, budget={"rounds_per_trial": 1}, evaluation={"cohort_size": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (round_,) = await host.rounds("s")
    assert (round_.attempts, len(round_.cohort)) == (1, 20)
    parts = [a for a in await host.assignments("s") if a.work == "train"]
    assert {a.client for a in parts if a.status == "accepted"} == {"good"}
    assert sum(a.status == "abandoned" for a in parts) >= 19


async def test_a_restart_goes_on_from_the_last_buffer_and_loses_what_was_under_way(tmp_path: Path) -> None:
    policy = buffered(min_clients=1, wait_for_clients="60s")
    async with (
        inside(tmp_path) as first,
        raw_client(first.address, "good"),
        raw_client(first.address, "late", do_nothing) as late,
    ):
        await first.create(spec(round=policy, budget={"rounds_per_trial": 60}))
        await first.until_event("s", "round_committed", lambda event: event.details["round"] >= 3)
        stale = late.trainings()[0].ref
        committed = {(r.trial, r.round): r.model_sha256 for r in await first.rounds("s")}
    async with inside(tmp_path) as second, raw_client(second.address, "late") as late:
        with pytest.raises(grpc.aio.AioRpcError, match="no longer wanted"):
            await late.push(stale)
        async with raw_client(second.address, "good"):
            assert (await second.until_over("s")).state is StudyState.COMPLETED
        rounds = await second.rounds("s")
        assert [r.round for r in rounds] == list(range(60))
        assert committed.items() <= {(r.trial, r.round): r.model_sha256 for r in rounds}.items()
