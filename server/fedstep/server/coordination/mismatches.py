"""Clients that a study gives no work, and who is told why."""

from collections.abc import Callable

from fedstep.server.coordination.eligible import Eligible
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.storage.base import NewEvent
from fedstep.v1 import fleet_pb2


class Mismatches:
    """Tells clients whose task or model is not a study's.

    Args:
        fleet: Who is there.
        eligible: Who can work for the study.
        announce_soon: Has an event of the study committed.
    """

    def __init__(self, fleet: Fleet, eligible: Eligible, announce_soon: Callable[[NewEvent], None]) -> None:
        self._fleet = fleet
        self._eligible = eligible
        self._announce_soon = announce_soon
        self._told: set[str] = set()

    def tell(self, member: Member) -> None:
        """Tells a client, once, why this study gives it no work; nothing to one that can work for it."""
        reason, name = self._eligible.mismatch(member), member.name
        member.message = reason or ""
        if reason and name not in self._told:
            self._told.add(name)
            notice = fleet_pb2.Notice(text=f"No work for {name}: {reason}.")
            self._fleet.send(member, fleet_pb2.ConnectResponse(notice=notice))
            self._announce_soon(NewEvent("client_mismatched", f"{name}: {reason}.", {"client": name, "reason": reason}))
