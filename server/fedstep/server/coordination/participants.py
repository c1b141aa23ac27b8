"""Who took part in a study so far, read from the store a part at a time: it may be long, and others wait for it."""

import itertools
from collections.abc import Collection

from fedstep.server.coordination import narrate
from fedstep.server.coordination.parts import Parts
from fedstep.server.report.participation import PARTICIPATION, Share, Tally
from fedstep.server.storage.base import Store, events_of_kind

_AT_ONCE = 1000


async def shares_in(study: str, there: Collection[str], parts: Parts) -> list[Share]:
    """Every client's part in a study, over all lives of the coordinator, by name.

    Args:
        study: Its name.
        there: The clients that are there for it now, or were at its end.
        parts: The coordinator's.
    """
    storage, store = parts.executors.storage, parts.store
    late = narrate.taken_late(await storage.run(events_of_kind, store, study, narrate.LATE_UPDATE))
    tally = Tally(there, [(taken.trial, taken.made_in, taken.client) for taken in late])
    records = await storage.run(store.assignments, study, None, None, "", False)

    def count_some() -> bool:
        some = [*itertools.islice(records, _AT_ONCE)]
        tally.add(some)
        return bool(some)

    while await storage.run(count_some):
        pass
    return tally.shares()


def never_asked(store: Store, study: str) -> list[str]:
    """Clients that were there at a study's end and need not be among its assignments; none before its end."""
    told = events_of_kind(store, study, PARTICIPATION)
    return [*told[-1].details["left_out"]] if told else []
