"""Who took part in a study so far, read from the store a part at a time: it may be long, and others wait for it."""

from collections.abc import Collection

from fedstep.server.coordination import narrate
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.reading import assignments_of, events_of
from fedstep.server.report.participation import PARTICIPATION, Share, Tally
from fedstep.server.storage.base import Event


async def shares_in(study: str, there: Collection[str], parts: Parts) -> list[Share]:
    """Every client's part in a study, over all lives of the coordinator, by name.

    Args:
        study: Its name.
        there: The clients that are there for it now, or were at its end.
        parts: The coordinator's.
    """
    late = await updates_taken_late(study, parts)
    tally = Tally(there, {(taken.trial, taken.made_in, taken.client): taken.part for taken in late})
    async for assignments in assignments_of(study, parts):
        await parts.executors.storage.run(tally.add, assignments)
    return tally.shares()


async def there_at_its_end(study: str, parts: Parts) -> list[str]:
    """Clients that were there at a study's end and need not be among its assignments; none before its end."""
    told = await _events(study, PARTICIPATION, parts)
    return [*told[-1].details["left_out"]] if told else []


async def updates_taken_late(study: str, parts: Parts) -> list[TakenLate]:
    """The late updates that a study's rounds have taken, over all lives of the coordinator."""
    return narrate.taken_late(await _events(study, narrate.LATE_UPDATE, parts))


async def _events(study: str, kind: str, parts: Parts) -> list[Event]:
    """A study's events of one kind."""
    return [event async for events in events_of(study, parts, kind) for event in events]
