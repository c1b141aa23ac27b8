"""Studies that stand still: their clients are free, their models kept, and they go on where they were."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until, until_true

from fedstep.api.aio import AsyncFedstep, connect
from fedstep.common.errors import NotFoundError, PreconditionError
from fedstep.common.spec_proto import spec_to_proto
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.v1 import study_pb2

LONG = {"trials": 2, "rounds_per_trial": 10}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path) as running:
        yield running


async def until_paused(host: Inside, name: str = "s") -> None:
    async def paused() -> bool:
        return (await host.record(name)).state is StudyState.PAUSED

    await until_true(paused, f"study {name} is paused")


async def in_a_round(fedstep: AsyncFedstep, work: TinyWork) -> None:
    """Begins a study whose client trains until its gate is opened."""
    work.gate.clear()
    await fedstep.create(spec_to_proto(spec(budget=LONG)))
    await until(lambda: work.begun, "a round is under way")


async def paused_in_the_middle(host: Inside, fedstep: AsyncFedstep, work: TinyWork) -> int:
    """A study that was paused while a client trained; answers with the rounds that are behind it."""
    await in_a_round(fedstep, work)
    assert (await fedstep.pause("s")).state == study_pb2.STUDY_STATE_PAUSING
    assert (await fedstep.pause("s")).state == study_pb2.STUDY_STATE_PAUSING  # asked twice is no other thing
    work.gate.set()
    await until_paused(host)
    return len(await host.rounds("s"))


async def test_its_snapshots_say_that_it_is_pausing_and_then_that_it_stands_still(host: Inside) -> None:
    async with tiny_agent(host.address, "ann") as work, connect(host.address) as fedstep:
        await in_a_round(fedstep, work)
        await fedstep.pause("s")
        states = []
        async for snapshot in fedstep.snapshots("s"):
            states.append(snapshot.state)
            work.gate.set()
        assert (states[0], states[-1]) == ("pausing", "paused")


async def test_the_round_under_way_is_finished_and_no_other_begins(host: Inside) -> None:
    async with tiny_agent(host.address, "ann") as work, connect(host.address) as fedstep:
        assert await paused_in_the_middle(host, fedstep, work) == 1
        assert [event.kind async for event in fedstep.watch("s")][-1] == "study_paused"
        (trial,) = await host.trials("s")
        assert trial.state is TrialState.RUNNING
        assert host.coordinator.parts.blobs.path(trial.model_sha256).exists()
        await until(lambda: not host.coordinator.parts.fleet.member("ann").working, "ann is free")
        # Its client is free for another study, which tidies up after itself and leaves the paused one's model.
        await fedstep.create(spec_to_proto(spec(name="other")))
        assert (await host.until_over("other")).state is StudyState.COMPLETED
        await fedstep.create(spec_to_proto(spec(budget=LONG)))  # the same file again does not wake it
        assert len(await host.rounds("s")) == 1
        assert (await fedstep.resume("s")).state == study_pb2.STUDY_STATE_RUNNING
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [round_.round for round_ in await host.rounds("s")] == [*range(10), *range(10)]
    assert [len(await host.events("s", kind)) for kind in ("study_pausing", "study_paused", "study_resumed")] == [1] * 3


async def test_it_goes_on_to_the_same_model_as_one_that_was_never_paused(host: Inside, tmp_path: Path) -> None:
    async with tiny_agent(host.address, "ann") as work, connect(host.address) as fedstep:
        await paused_in_the_middle(host, fedstep, work)
        await fedstep.resume("s")
        paused = await host.until_over("s")
    async with inside(tmp_path / "other") as other, tiny_agent(other.address, "ann"):
        await other.create(spec(budget=LONG))
        unpaused = await other.until_over("s")
    assert paused.result is not None
    assert unpaused.result is not None
    assert paused.result.model_sha256 == unpaused.result.model_sha256


async def test_it_stays_paused_over_a_restart_and_keeps_its_model(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, connect(host.address) as fedstep:
        async with tiny_agent(host.address, "ann") as work:
            rounds = await paused_in_the_middle(host, fedstep, work)
            (trial,) = await host.trials("s")
        port = host.coordinator.port
    async with inside(tmp_path, port=port) as host, connect(host.address) as fedstep, tiny_agent(host.address, "ann"):
        assert (await host.record("s")).state is StudyState.PAUSED
        await fedstep.create(spec_to_proto(spec(name="other")))
        await host.until_over("other")
        assert len(await host.rounds("s")) == rounds
        assert host.coordinator.parts.blobs.path(trial.model_sha256).exists()
        await fedstep.resume("s")
        assert (await host.until_over("s")).state is StudyState.COMPLETED


@pytest.mark.parametrize("state", ["pausing", "interrupted"])
async def test_killed_while_it_was_pausing_it_is_paused_and_resumed_like_any_other(tmp_path: Path, state: str) -> None:
    """Drained in the middle of a round that nobody finishes, told to pause before; or not told."""
    async with inside(tmp_path) as host, connect(host.address) as fedstep, tiny_agent(host.address, "ann") as work:
        await in_a_round(fedstep, work)
        if state == "pausing":
            await fedstep.pause("s")
        port = host.coordinator.port
    with closing(sqlite3.connect(tmp_path / "fedstep.db")) as database:
        assert database.execute("SELECT state FROM fedstep_studies").fetchall() == [(state,)]
    async with inside(tmp_path, port=port) as host, connect(host.address) as fedstep, tiny_agent(host.address, "ann"):
        if state == "pausing":
            assert (await host.record("s")).state is StudyState.PAUSED
            await fedstep.resume("s")
        assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_a_study_that_was_interrupted_for_want_of_clients_is_resumed(host: Inside) -> None:
    async with connect(host.address) as fedstep:
        await fedstep.create(spec_to_proto(spec(round={"wait_for_clients": "1s"})))
        assert (await host.until_over("s")).state is StudyState.INTERRUPTED
        async with tiny_agent(host.address, "ann"):
            await fedstep.resume("s")
            assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_resumed_before_it_stood_still_it_goes_on(host: Inside) -> None:
    async with tiny_agent(host.address, "ann") as work, connect(host.address) as fedstep:
        await in_a_round(fedstep, work)
        await fedstep.pause("s")
        assert (await fedstep.resume("s")).state == study_pb2.STUDY_STATE_RUNNING
        work.gate.set()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert not await host.events("s", "study_paused")


@pytest.mark.parametrize("when", ["pausing", "paused"])
async def test_a_paused_study_can_be_stopped(host: Inside, when: str) -> None:
    async with tiny_agent(host.address, "ann") as work, connect(host.address) as fedstep:
        await in_a_round(fedstep, work)
        await fedstep.pause("s")
        if when == "pausing":
            await fedstep.stop("s")
        work.gate.set()
        if when == "paused":
            await until_paused(host)
            await fedstep.stop("s")
        record = await host.until_over("s")
    assert record.state is StudyState.STOPPED
    assert record.result is not None


async def test_while_it_waits_for_clients_it_pauses_at_once(host: Inside) -> None:
    async with connect(host.address) as fedstep:
        await fedstep.create(spec_to_proto(spec()))
        await host.until_event("s", "waiting_for_clients")
        await fedstep.pause("s")
        await until_paused(host)
        await fedstep.resume("s")
        async with tiny_agent(host.address, "ann"):
            assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_parallel_trials_and_a_tuner_of_arms_are_paused_too(host: Inside) -> None:
    arms = {"name": "arms", "tuner": {"name": "fixed"}, "budget": {"rounds": 30}}
    beside = {"name": "beside", "parallel_trials": 2, "budget": LONG, "round": {"min_clients": 2, "cohort_size": 1}}
    async with (
        tiny_agent(host.address, "ann"),
        tiny_agent(host.address, "ben"),
        connect(host.address) as fedstep,
    ):
        for changes in (arms, beside):
            name = str(changes["name"])
            await fedstep.create(spec_to_proto(spec(**changes)))
            await host.until_event(name, "round_committed")
            await fedstep.pause(name)
            await until_paused(host, name)
            rounds = len(await host.rounds(name))
            await fedstep.resume(name)
            assert (await host.until_over(name)).state is StudyState.COMPLETED
            assert 0 < rounds < len(await host.rounds(name))
    assert len(await host.rounds("arms")) == 30
    assert len(await host.rounds("beside")) == 20


async def test_what_has_ended_or_is_not_there_says_so(host: Inside) -> None:
    async with tiny_agent(host.address, "ann"), connect(host.address) as fedstep:
        await fedstep.create(spec_to_proto(spec()))
        await host.until_over("s")
        with pytest.raises(PreconditionError, match=r"Study s has ended \(completed\): there is nothing to pause"):
            await fedstep.pause("s")
        with pytest.raises(PreconditionError, match=r"Study s has ended \(completed\) and cannot go on"):
            await fedstep.resume("s")
        for call in (fedstep.pause, fedstep.resume):
            with pytest.raises(NotFoundError, match="other"):
                await call("other")
