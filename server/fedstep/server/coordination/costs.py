"""What a study has cost so far, read from the store a part at a time: it may be long, and others wait for it."""

from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.reading import assignments_of, events_of
from fedstep.server.report.cost import CostTally, StudyCost, cost_of_study, tuning_event_bytes
from fedstep.server.storage.base import StudyRecord, all_trials


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
    async for assignments in assignments_of(name, parts):
        await storage.run(tally.add, assignments)
    event_bytes = 0
    async for events in events_of(name, parts):
        event_bytes += tuning_event_bytes(events)
    costs = await storage.run(store.costs, name)
    return cost_of_study(study, trials, delivered, costs, tally, await storage.run(store.overhead, name), event_bytes)
