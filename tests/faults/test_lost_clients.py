"""Clients that are killed, frozen, cut off or slow: no round waits for them past its deadline, and they come back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from e2e.inside import SHORT_LEASE, Inside, inside
from e2e.processes import Programs, clients_of
from e2e.raw import RawClient, do_nothing, raw_client
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until
from faults.proxy import Proxy, proxy

from fedstep.common.tasks import load_task
from fedstep.server.coordination.fleet import Presence
from fedstep.server.storage.base import StudyState
from fedstep.v1 import fleet_pb2 as pb

GATED = Path(__file__).parent / "gated_task.py"
DEADLINE_S = 4.0
OVER_AND_PERHAPS_STALE = (1, 2)
"""Faults of a client that was lost: what it was working on may still come, too late, and counts as well."""


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "data", tasks=[load_task(str(GATED))]) as running:
        yield running


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Inside]:
    """A coordinator that takes a client to be gone after a second and a half."""
    async with inside(tmp_path / "data", tasks=[load_task(str(GATED))], lease=SHORT_LEASE) as running:
        yield running


@asynccontextmanager
async def near_and_far(host: Inside) -> AsyncIterator[tuple[Proxy, TinyWork]]:
    """Two clients: near, and far, behind a network of its own, whose training waits before its second step."""
    work = TinyWork()
    work.gate.clear()
    async with (
        proxy(host.address) as network,
        tiny_agent(host.address, "near"),
        tiny_agent(network.address, "far", work),
    ):
        yield network, work


async def names(host: Inside, presence: Presence) -> list[str]:
    return [m.name for m in host.coordinator.parts.fleet.members() if m.presence is presence]


async def test_a_client_killed_in_mid_round_is_named_and_the_round_ends_in_time(host: Inside, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    with Programs(tmp_path / "logs") as programs:
        b = programs.client(host.address, "b", "--option", f"gate={gate}", task=GATED)
        programs.client(host.address, "a", "--option", f"gate={gate}", task=GATED)
        (gate / "b.hold").touch()
        policy = {"min_clients": 2, "deadline": f"{DEADLINE_S}s", "quorum": 0.5}
        await host.create(spec(task="gated", round=policy, budget={"rounds_per_trial": 2}))
        await until((gate / "b.held").exists, "b is in the middle of a step")
        b.kill()
        first = await host.until_event("s", "round_committed")
        lost = (await host.events("s", "client_lost", "client_late"))[0]
        assert lost.details["client"] == "b"
        assert lost.number < first.number
        (gate / "b.hold").unlink()
        programs.client(host.address, "b", "--option", f"gate={gate}", task=GATED)  # restarted, under its name
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        listed = await asyncio.to_thread(clients_of, host.address)
    (held,) = [a for a in await host.assignments("s", "b") if a.work == "train" and a.round == 0]
    assert held.status in ("late", "lost")
    assert held.elapsed_s <= DEADLINE_S + 1
    assert [(r.updates, r.attempts) for r in await host.rounds("s")] == [(1, 1), (2, 1)]
    assert int(listed["b"]["faults"]) == 1
    assert int(listed["a"]["faults"]) == 0


async def test_a_frozen_client_costs_no_more_than_the_deadline_and_is_used_again(
    impatient: Inside, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    with Programs(tmp_path / "logs") as programs:
        a = programs.client(impatient.address, "a", "--option", f"gate={gate}", task=GATED)
        b = programs.client(impatient.address, "b", "--option", f"gate={gate}", task=GATED)
        (gate / "b.hold").touch()
        policy = {"min_clients": 2, "deadline": f"{DEADLINE_S}s", "quorum": 0.5}
        await impatient.create(spec(task="gated", round=policy, budget={"rounds_per_trial": 2}))
        await until((gate / "b.held").exists, "b is in the middle of a step")
        b.send(signal.SIGSTOP)
        await impatient.until_event("s", "round_committed")
        # The second round needs both of them.
        await impatient.until_event("s", "waiting_for_clients", lambda event: event.details["here"] == ["a"])
        assert await names(impatient, Presence.GONE) == ["b"]
        (gate / "b.hold").unlink()
        b.send(signal.SIGCONT)
        assert (await impatient.until_over("s")).state is StudyState.COMPLETED
        assert not a.ended
        assert not b.ended
    (held,) = [x for x in await impatient.assignments("s", "b") if x.work == "train" and x.round == 0]
    assert held.status == "lost"
    assert held.elapsed_s <= DEADLINE_S + 1
    assert [(r.updates, r.attempts) for r in await impatient.rounds("s")] == [(1, 1), (2, 1)]
    assert impatient.faults("b") in OVER_AND_PERHAPS_STALE
    assert [e.details["client"] for e in await impatient.events("s", "client_lost")] == ["b"]


async def test_a_client_cut_off_from_the_network_comes_back_by_itself(impatient: Inside) -> None:
    async with near_and_far(impatient) as (network, work):
        await impatient.create(spec(round={"min_clients": 2, "deadline": "10s"}, budget={"rounds_per_trial": 2}))
        await until(lambda: work.begun, "the far client trains")
        network.silence()
        await impatient.until_event("s", "round_committed")
        await impatient.until_event("s", "waiting_for_clients", lambda event: event.details["here"] == ["near"])
        assert await names(impatient, Presence.GONE) == ["far"]
        work.gate.set()
        network.restore()
        assert (await impatient.until_over("s")).state is StudyState.COMPLETED
    assert [r.updates for r in await impatient.rounds("s")] == [1, 2]
    assert impatient.faults("far") in OVER_AND_PERHAPS_STALE
    assert [e.details["client"] for e in await impatient.events("s", "client_lost")] == ["far"]


async def test_a_short_cut_loses_no_work(host: Inside) -> None:
    work = TinyWork()
    work.gate.clear()
    async with proxy(host.address) as network, tiny_agent(network.address, "far", work):
        await host.create(spec(budget={"rounds_per_trial": 1}))
        await until(lambda: work.begun, "the client trains")
        network.cut()
        (member,) = host.coordinator.parts.fleet.members()
        await until(lambda: member.stream > 1, "the client is back, on a new stream")
        work.gate.set()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert work.begun == 1
    assert [(r.updates, r.attempts) for r in await host.rounds("s")] == [(1, 1)]
    assert host.faults("far") == 0


async def test_a_client_that_hangs_is_late_counted_and_told_to_stop(host: Inside) -> None:
    async with raw_client(host.address, "good"), raw_client(host.address, "hangs", do_nothing) as hangs:
        await host.create(spec(round={"min_clients": 2, "deadline": "1s"}, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        await until(lambda: len(hangs.directives) == 2, "it is told to send what it has, and then to stop")
    assert [d.kind for d in hangs.directives] == [pb.DIRECTIVE_KIND_STOP_AND_SEND, pb.DIRECTIVE_KIND_ABANDON]
    assert {d.ref.assignment_id for d in hangs.directives} == {hangs.trainings()[0].ref.assignment_id}
    (late,) = [a for a in await host.assignments("s", "hangs") if a.work == "train"]
    assert late.status == "late"
    assert 1.0 <= late.elapsed_s <= 2.0
    assert host.faults("hangs") == 1
    assert [e.details["client"] for e in await host.events("s", "client_late")] == ["hangs"]
    assert [r.updates for r in await host.rounds("s")] == [1]


async def test_enough_answers_end_the_round_and_the_others_are_told_to_stop(host: Inside) -> None:
    policy = {"min_clients": 3, "cohort_size": 2, "over_selection": 1.5, "deadline": "60s"}
    async with (
        raw_client(host.address, "a"),
        raw_client(host.address, "b"),
        raw_client(host.address, "slow", do_nothing) as slow,
    ):
        await host.create(spec(round=policy, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        (directive,) = await until(lambda: slow.directives, "the third is told to stop")
    assert directive.kind == pb.DIRECTIVE_KIND_ABANDON
    (round_,) = await host.rounds("s")
    assert (set(round_.cohort), round_.updates) == ({"a", "b", "slow"}, 2)
    assert host.faults("slow") == 0  # being asked one too many is no fault
    assert [a.status for a in await host.assignments("s", "slow") if a.work == "train"] == ["abandoned"]


async def test_a_round_below_its_quorum_is_tried_again_then_the_study_is_interrupted(host: Inside) -> None:
    policy = {"min_clients": 2, "deadline": "0.5s", "quorum": 1.0, "wait_for_clients": "5s"}
    async with raw_client(host.address, "good"), raw_client(host.address, "hangs", do_nothing):
        await host.create(spec(round=policy, budget={"rounds_per_trial": 1}))
        record = await host.until_over("s")
    assert record.state is StudyState.INTERRUPTED
    assert "quorum" in record.message
    assert "hangs" in record.message
    missed = await host.events("s", "round_missed")
    assert [e.details["attempt"] for e in missed] == [1, 2, 3]
    assert await host.rounds("s") == []


async def test_rounds_shorter_than_a_lease_wait_for_a_client_that_was_cut_off(impatient: Inside) -> None:
    """They are over three times before its lease is: until then nobody knows that it is gone."""
    async with near_and_far(impatient) as (network, work):
        policy = {"min_clients": 2, "deadline": "0.3s", "quorum": 1.0, "wait_for_clients": "60s"}
        await impatient.create(spec(round=policy, budget={"rounds_per_trial": 1}))
        await until(lambda: work.begun, "the far client trains")
        network.silence()
        await impatient.until_event("s", "waiting_for_clients", lambda event: event.details["here"] == ["near"])
        work.gate.set()
        network.restore()
        assert (await impatient.until_over("s")).state is StudyState.COMPLETED
    assert [e.details["attempt"] for e in await impatient.events("s", "round_missed")] == [1, 2]


async def test_a_failing_client_says_why_and_the_round_goes_on(host: Inside) -> None:
    async def fail(client: RawClient, assignment: pb.Assignment) -> None:
        outcome = pb.Outcome(ref=assignment.ref, status=pb.OUTCOME_STATUS_FAILED, message="its disk is full")
        await client.tell(pb.ConnectRequest(outcome=outcome))

    async with raw_client(host.address, "good"), raw_client(host.address, "broken", fail):
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    (failed,) = await host.events("s", "client_failed")
    assert failed.details["client"] == "broken"
    assert "its disk is full" in failed.text
    assert host.faults("broken") == 1


async def test_a_thawed_client_wakes_a_study_that_waits_for_it(impatient: Inside) -> None:
    """Its stream was never cut: only what it says tells that it is back."""
    async with raw_client(impatient.address, "sleeper") as sleeper:
        (member,) = impatient.coordinator.parts.fleet.members()
        heartbeat_s = sleeper.welcome.heartbeat_interval.ToMilliseconds() / 1000
        sleeper.welcome.heartbeat_interval.FromSeconds(3600)  # from its next heartbeat on it says no more
        await until(lambda: member.presence is Presence.GONE, f"its lease ends (it spoke every {heartbeat_s} s)")
        await impatient.create(spec(round={"wait_for_clients": "3000s"}, budget={"rounds_per_trial": 1}))
        await impatient.until_event("s", "waiting_for_clients")
        await sleeper.tell(pb.ConnectRequest(heartbeat=pb.Heartbeat()))
        assert (await impatient.until_over("s")).state is StudyState.COMPLETED


async def test_a_second_process_takes_over_from_one_that_is_frozen_for_good(impatient: Inside) -> None:
    async with raw_client(impatient.address, "c", instance_id="frozen") as frozen:
        (member,) = impatient.coordinator.parts.fleet.members()
        frozen.welcome.heartbeat_interval.FromSeconds(3600)
        await until(lambda: member.presence is Presence.GONE, "the first one's lease ends")
        async with raw_client(impatient.address, "c", instance_id="new") as new:
            await until(
                lambda: frozen._call.done(), "the first one's stream is ended: it must not speak for the second"
            )
            await impatient.create(spec(budget={"rounds_per_trial": 1}))
            assert (await impatient.until_over("s")).state is StudyState.COMPLETED
            assert len(new.trainings()) == 1
        assert frozen.assignments == []


async def test_a_restarted_coordinator_remembers_faults(tmp_path: Path) -> None:
    async def refuse(client: RawClient, assignment: pb.Assignment) -> None:
        outcome = pb.Outcome(ref=assignment.ref, status=pb.OUTCOME_STATUS_REFUSED, message="no")
        await client.tell(pb.ConnectRequest(outcome=outcome))

    async with inside(tmp_path) as host, raw_client(host.address, "good"), raw_client(host.address, "bad", refuse):
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        await host.until_over("s")
    async with inside(tmp_path) as host:
        assert (host.faults("bad"), host.faults("good")) == (1, 0)
