"""Proxies that end connections and calls on their own: a study goes through them from its start to its result."""

import asyncio
from pathlib import Path

import pytest
from e2e.inside import Inside, inside
from e2e.raw import raw_client
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until
from faults.proxy import proxy

from fedstep.client.events import ClientEvent
from fedstep.common.errors import InternalError
from fedstep.server.api import fleet_service
from fedstep.server.storage.base import StudyState
from fedstep.v1 import fleet_pb2 as pb

TIMES = 3


async def assert_finished(host: Inside) -> None:
    """The study is over, and no work of its clients was lost on the way."""
    record = await host.until_over("s")
    assert record.state is StudyState.COMPLETED
    assert not await host.events("s", "client_lost", "client_failed", "client_refused", "update_stale")
    assert {assignment.status for assignment in await host.assignments("s")} == {"accepted"}


@pytest.mark.parametrize("how", [{"idle_s": 1.0}, {"longest_s": 2.0}], ids=["idle ones", "every one"])
async def test_a_proxy_that_ends_connections(tmp_path: Path, how: dict[str, float]) -> None:
    work = TinyWork()
    work.gate.clear()
    async with (
        inside(tmp_path) as host,
        proxy(host.address, **how) as between,
        tiny_agent(between.address, "ann", work),
    ):
        await host.create(spec(budget={"trials": 2, "rounds_per_trial": 3}))
        await until(lambda: between.ended >= TIMES and work.begun, "connections have ended while it trained")
        work.gate.set()
        await assert_finished(host)
        ended = between.ended
        await until(lambda: between.ended > ended, "connections end also when there is nothing to do")
        await host.create(spec(name="after"))
        assert (await host.until_over("after")).state is StudyState.COMPLETED


async def test_calls_that_are_ended_because_nothing_comes_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nginx ends them, by RST_STREAM; here the coordinator's own side does."""
    ended = 0

    async def impatient(outbox: "asyncio.Queue[pb.ConnectResponse | None]") -> pb.ConnectResponse | None:
        nonlocal ended
        try:
            async with asyncio.timeout(0.3):
                return await outbox.get()
        except TimeoutError:
            ended += 1
            raise InternalError("Received RST_STREAM with error code 2") from None

    monkeypatch.setattr(fleet_service, "_next_word", impatient)
    work = TinyWork()
    work.gate.clear()
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann", work):
        await host.create(spec(budget={"trials": 2, "rounds_per_trial": 3}))
        await until(lambda: ended >= TIMES and work.begun, "calls have ended while it trained")
        work.gate.set()
        await assert_finished(host)


async def test_a_coordinator_that_has_nothing_to_say_says_that_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_service, "QUIET_S", 0.01)
    heard: list[ClientEvent] = []
    async with inside(tmp_path) as host, raw_client(host.address) as raw, tiny_agent(host.address, "ann", heard=heard):
        await until(lambda: raw.heartbeats >= TIMES, "heartbeats come")
        await host.create(spec())
        await assert_finished(host)
    assert [event.kind for event in heard if event.kind.endswith("connected")] == ["connected"]
