"""What a study has cost so far, read from the store a part at a time: it may be long, and others wait for it."""

import itertools

from fedstep.server.coordination.parts import Parts
from fedstep.server.report.cost import CostTally, StudyCost, cost_of_study, tuning_event_bytes
from fedstep.server.storage.base import StudyRecord, all_trials

_AT_ONCE = 1000


async def cost_so_far(study: StudyRecord, delivered: int | None, parts: Parts) -> StudyCost:
    """What a study has cost, in all lives of the coordinator, up to its last commit.

    Args:
        study: As the store has it.
        delivered: The trial whose model it ended with, or would end with now; None where there is none.
        parts: The coordinator's.
    """
    storage, store, name = parts.executors.storage, parts.store, study.spec.name
    trials = await storage.run(all_trials, store, name)
    tally = CostTally()
    records = await storage.run(store.assignments, name, None, None, "", False)

    def count_some() -> bool:
        some = [*itertools.islice(records, _AT_ONCE)]
        tally.add(some)
        return bool(some)

    while await storage.run(count_some):
        pass
    event_bytes = after = 0
    while page := await storage.run(store.events, name, after, _AT_ONCE):
        event_bytes += tuning_event_bytes(page)
        after = page[-1].number
    costs = await storage.run(store.costs, name)
    return cost_of_study(study, trials, delivered, costs, tally, await storage.run(store.overhead, name), event_bytes)
