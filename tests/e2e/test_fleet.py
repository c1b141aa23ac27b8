"""Who may work: names, mismatches, and waiting for clients."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from e2e.inside import Inside, inside
from e2e.processes import Programs, clients_of, fedstep
from e2e.raw import layout, raw_client
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until

from fedstep.client.work import Control, Evaluated, Job
from fedstep.server.storage.base import StudyState


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "data") as running:
        yield running


async def test_clients_of_another_task_or_model_are_told_so_by_name_and_get_no_work(
    host: Inside, tmp_path: Path
) -> None:
    async with raw_client(host.address, "fits"), raw_client(host.address, "narrow", model=layout(weight=(2, 3))) as n:
        with Programs(tmp_path / "logs") as programs:
            other = programs.client(host.address, "other", "--partition", "1/8")
            await until(lambda: other.says("connected to"), "the client is there")
            await host.create(spec(budget={"rounds_per_trial": 1}))
            assert (await host.until_over("s")).state is StudyState.COMPLETED
            await until(lambda: other.says("No work for other"), "it says why it gets no work")
            said = next(line for line in other.out.splitlines() if "No work for other" in line)
            listed = await asyncio.to_thread(clients_of, host.address)
        assert "study s trains task tiny and this client serves digits" in said
        await until(lambda: n.notices, "the other model's client is told too")
        assert "weight" in n.notices[0]
        assert n.assignments == []
    assert [(r.cohort, r.evaluators) for r in await host.rounds("s")] == [(("fits",), ("fits",))]
    assert listed["other"]["state"] == listed["narrow"]["state"] == "CLIENT_STATE_MISMATCHED"
    assert "digits" in listed["other"]["message"]
    assert "weight" in listed["narrow"]["message"]
    assert listed["fits"]["message"] == ""
    assert {e.details["client"] for e in await host.events("s", "client_mismatched")} == {"other", "narrow"}


async def test_a_client_that_comes_later_is_told_too(host: Inside) -> None:
    await host.create(spec(round={"wait_for_clients": "60s"}))
    async with raw_client(host.address, "late", task="other") as late:
        await until(lambda: late.notices, "it is told why it gets no work")
    assert "tiny" in late.notices[0]


async def test_a_name_is_one_process_at_a_time(host: Inside, tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        first = programs.client(host.address, "ann", "--partition", "1/8")
        await until(lambda: first.says("connected to"), "the first is there")
        second = await asyncio.to_thread(
            fedstep, *("client", "--coordinator", host.address, "--task", "digits", "--name", "ann")
        )
        assert second.code == 2
        assert second.err.count("\n") == 1
        assert "A client named ann is connected already" in second.err
        assert "--name" in second.err
        assert not first.ended
        first.kill()
        again = programs.client(host.address, "ann", "--partition", "1/8")
        await until(lambda: again.says("connected to"), "the restarted one is there")
        assert not again.ended


async def test_a_study_says_who_is_there_who_is_missing_and_until_when(host: Inside) -> None:
    file_again = spec(round={"min_clients": 3, "wait_for_clients": "1s"}, budget={"rounds_per_trial": 1})
    async with AsyncExitStack() as clients:
        for name in ("ann", "ben"):
            await clients.enter_async_context(tiny_agent(host.address, name))
        await until(lambda: len(host.coordinator.parts.fleet.members()) == 2, "both are there")
        await host.create(file_again)
        record = await host.until_over("s")
        (waiting,) = await host.events("s", "waiting_for_clients")
        assert waiting.text.startswith("Waiting until ")
        assert "UTC for 3 clients of task tiny; here now: ann, ben." in waiting.text
        assert (waiting.details["needed"], waiting.details["here"]) == (3, ["ann", "ben"])
        assert record.state is StudyState.INTERRUPTED
        assert "Only 2 of the 3 clients of task tiny" in record.message
        assert "fedstep client --task tiny" in record.message
        assert "run the same study file again" in record.message
        await clients.enter_async_context(tiny_agent(host.address, "cat"))
        await host.create(file_again)
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [(r.trial, r.round, r.updates) for r in await host.rounds("s")] == [(0, 0, 3)]
    assert [t.number for t in await host.trials("s")] == [0]


async def test_a_study_that_waits_for_clients_can_be_stopped(host: Inside) -> None:
    await host.create(spec(round={"min_clients": 3, "wait_for_clients": "3000s"}))
    await host.until_event("s", "waiting_for_clients")
    await host.stop("s")
    assert (await host.until_over("s", timeout_s=10)).state is StudyState.STOPPED


class Leaver(TinyWork):
    """Goes away in the middle of its first evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.left = threading.Event()

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        self.asked.set()
        self.left.wait(20)
        return super().evaluate(job, control)


async def test_a_model_is_measured_again_where_all_who_measured_it_were_lost(host: Inside) -> None:
    leaver = Leaver()
    async with AsyncExitStack() as later:
        async with tiny_agent(host.address, "ann", leaver):
            await host.create(spec(round={"wait_for_clients": "60s"}, budget={"rounds_per_trial": 1}))
            await until(leaver.asked.is_set, "the only client is asked to measure")
            later.callback(leaver.left.set)
        await host.until_event("s", "waiting_for_clients")
        await later.enter_async_context(tiny_agent(host.address, "ben"))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (round_,) = await host.rounds("s")
    assert (round_.cohort, round_.evaluators, round_.metrics["accuracy"]) == (("ann",), ("ben",), 0.5)


async def test_a_round_that_nobody_could_measure_is_paid_for_and_trained_again(host: Inside) -> None:
    leaver = Leaver()
    file = spec(round={"wait_for_clients": "1s"}, budget={"trials": 1, "rounds_per_trial": 1})
    async with AsyncExitStack() as later:
        async with tiny_agent(host.address, "ann", leaver):
            await host.create(file)
            await until(leaver.asked.is_set, "the only client is asked to measure")
            later.callback(leaver.left.set)
        assert (await host.until_over("s")).state is StudyState.INTERRUPTED
        await later.enter_async_context(tiny_agent(host.address, "ben"))
        await host.create(file)
        record = await host.until_over("s")
        (told,) = await host.events("s", "round_unmeasured")
    assert record.state is StudyState.COMPLETED
    assert "trained again" in told.text
    assert (record.spent.rounds, len(await host.rounds("s"))) == (2, 1)


async def cut_off(folder: Path, clients: AsyncExitStack) -> int:
    """A study of ann and ben whose coordinator has gone, and ben with it; answers with the coordinator's port."""
    held = TinyWork()
    async with inside(folder) as host:
        await clients.enter_async_context(tiny_agent(host.address, "ann"))
        async with tiny_agent(host.address, "ben", held):
            await until(lambda: len(host.coordinator.parts.fleet.members()) == 2, "both are there")
            await host.create(spec(budget={"trials": 1, "rounds_per_trial": 4}))
            await host.until_event("s", "round_committed")
            held.gate.clear()
        return host.coordinator.port


async def test_a_study_that_goes_on_waits_a_little_for_those_it_had(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        port = await cut_off(tmp_path / "data", clients)
        async with inside(tmp_path / "data", port=port) as host:
            await until(host.coordinator.parts.fleet.members, "the first is back")
            await clients.enter_async_context(tiny_agent(host.address, "ben"))
            assert (await host.until_over("s")).state is StudyState.COMPLETED
            rounds = await host.rounds("s")
    assert {record.cohort for record in rounds} <= {("ann", "ben"), ("ben", "ann")}
    assert len(rounds) == 4


async def test_a_study_that_goes_on_says_who_has_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedstep.server.coordination.waiting.RETURN_WAIT_S", 0.3)
    async with AsyncExitStack() as clients:
        port = await cut_off(tmp_path / "data", clients)
        async with inside(tmp_path / "data", port=port) as host:
            assert (await host.until_over("s")).state is StudyState.COMPLETED
            (told,) = await host.events("s", "clients_missing")
    assert "ben" in told.details["missing"]
    assert "ben" in told.text


async def test_a_study_waits_its_turn_where_another_keeps_the_clients_busy(host: Inside) -> None:
    policy = {"min_clients": 1, "wait_for_clients": "0s"}
    work = TinyWork()
    work.gate.clear()
    async with tiny_agent(host.address, "ann", work):
        await until(host.coordinator.parts.fleet.members, "the client is there")
        await host.create(spec(name="first", round=policy, budget={"rounds_per_trial": 1}))
        await until(lambda: work.begun, "the first study keeps the client busy")
        await host.create(spec(name="second", round=policy, budget={"rounds_per_trial": 1}))
        with suppress(TimeoutError):
            async with asyncio.timeout(1):  # it must not give up, so there is nothing to wait for
                await host.until_over("second")
        work.gate.set()
        assert (await host.until_over("first")).state is StudyState.COMPLETED
        assert (await host.until_over("second")).state is StudyState.COMPLETED
