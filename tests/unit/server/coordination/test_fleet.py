"""Who is there: silence, leases and coming back, on a virtual clock."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from fedstep.server.coordination.fleet import Fleet, LeasePolicy, Member, Presence
from fedstep.simulation.virtual_loop import VirtualClock, run_virtual
from fedstep.v1 import fleet_pb2

INTERVAL_S = LeasePolicy().heartbeat_interval.total_seconds()
LEASE_S = LeasePolicy().lease.total_seconds()


def run(script: Callable[[Fleet, Member], Coroutine[Any, Any, None]], policy: LeasePolicy | None = None) -> None:
    """Runs a script with a fleet that watches its clients, and one of them."""

    async def main() -> None:
        fleet = Fleet(VirtualClock(asyncio.get_running_loop()), policy or LeasePolicy(), [])
        watch = asyncio.create_task(fleet.expire_leases())
        await script(fleet, await fleet.join(fleet_pb2.Hello(client_name="c", task="t")))
        watch.cancel()

    run_virtual(main())


def test_who_lets_two_heartbeats_pass_is_out_of_touch_until_it_is_heard_of() -> None:
    async def script(fleet: Fleet, member: Member) -> None:
        await asyncio.sleep(2 * INTERVAL_S - 0.1)
        assert member.connected
        await asyncio.sleep(LEASE_S / 8 + 0.2)
        assert (member.connected, member.lost_touch, member.presence) == (False, True, Presence.CONNECTED)
        assert not fleet.roll.connected[member.row]
        assert fleet.roll.lost_touch[member.row]
        back = asyncio.create_task(fleet.wait_until(lambda: member.connected, 1.0))
        await asyncio.sleep(0)
        fleet.heard(member)
        assert await back
        assert fleet.roll.connected[member.row]

    run(script)


def test_it_is_still_told_what_it_has_to_know() -> None:
    async def script(fleet: Fleet, member: Member) -> None:
        await asyncio.sleep(3 * INTERVAL_S)
        assert member.quiet
        fleet.send(member, fleet_pb2.ConnectResponse(drain=fleet_pb2.Drain(reason="r")))
        assert member.outbox.qsize() == 1

    run(script)


def test_it_is_gone_when_its_lease_has_run_out_and_back_when_it_is_heard_of() -> None:
    async def script(fleet: Fleet, member: Member) -> None:
        await asyncio.sleep(1.2 * LEASE_S)
        assert (member.presence, member.quiet, member.lost_touch) == (Presence.GONE, False, False)
        fleet.heard(member)
        assert member.connected

    run(script)


def test_a_new_session_is_not_quiet() -> None:
    async def script(fleet: Fleet, member: Member) -> None:
        await asyncio.sleep(3 * INTERVAL_S)
        await fleet.left(member, member.stream)
        assert member.lost_touch
        assert (await fleet.join(fleet_pb2.Hello(client_name="c", task="t"))).connected

    run(script)


def test_where_no_heartbeats_are_asked_for_silence_means_nothing() -> None:
    async def script(fleet: Fleet, member: Member) -> None:
        await asyncio.sleep(0.9 * LEASE_S)
        assert member.connected

    run(script, LeasePolicy(heartbeat_interval=timedelta(0)))
