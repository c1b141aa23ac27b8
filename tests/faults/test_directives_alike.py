"""The same directive, in the same study, to a process over the network and to a simulated client: side by side."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from e2e.inside import inside
from e2e.processes import Programs
from e2e.studies import spec
from faults.paced_task import SAMPLES as STEPS
from faults.paced_task import Paced

from fedstep.common.handicap import Handicap
from fedstep.common.spec import StudySpec
from fedstep.common.tasks import load_task
from fedstep.server.storage.base import AssignmentRecord, Event, RoundRecord
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.run import Federation, simulate
from fedstep.simulation.speed import SpeedModel

PACED = Path(__file__).parent / "paced_task.py"
NAMES = ("client-0", "client-1")
STEP_S, DEADLINE_S = 0.25, 6.0
"""Of the slow one, which would need 16 s for all of its steps."""


@dataclass(frozen=True)
class Seen:
    """What the coordinator has of a round in which one of two clients would have missed the deadline."""

    round: RoundRecord
    parts: dict[str, AssignmentRecord]
    told: list[Event]

    @property
    def slow(self) -> str:
        return str(self.told[0].details["client"])

    def facts(self) -> dict[str, object]:
        """All that does not hang on how long things took."""
        (event,) = self.told
        quick = next(name for name in NAMES if name != self.slow)
        return {
            "told": {**event.details, "steps": None, "projected_finish_s": None},
            "round": (self.round.updates, self.round.attempts, self.round.metrics["partial_updates"]),
            "statuses": {name: part.status for name, part in self.parts.items()},
            "whole": self.parts[quick].metrics["steps"],
        }

    def taken(self) -> int:
        """Steps of the slow one, which are those that it reported and those that its update counts for."""
        part = self.parts[self.slow]
        assert part.steps is not None
        assert part.metrics["steps"] == len(part.steps.loss)
        return len(part.steps.loss)


def the_study() -> StudySpec:
    policy = {"min_clients": 2, "deadline": f"{DEADLINE_S:g}s", "quorum": 1.0}
    return spec(task="paced", round=policy, budget={"rounds_per_trial": 1})


def simulated(folder: Path) -> Seen:
    """A step of the quick one takes a millisecond of virtual time."""
    found = simulate(
        the_study(),
        Paced(),
        Federation(
            2,
            {"folder": str(folder)},
            SpeedModel(step_ms=1, sample_ms=0, spread=0),
            vectorised=False,
            hardship=Hardship(Handicap(slowdown=1000 * STEP_S), slow_share=0.5),
        ),
    )
    return seen(found.rounds, found.assignments, found.events)


async def over_the_network(folder: Path, slow: str) -> Seen:
    async with inside(folder / "data", tasks=[load_task(str(PACED))]) as host:
        with Programs(folder / "logs") as programs:
            for name in NAMES:
                pace = STEP_S if name == slow else 0.0
                of_the_task = ("--option", f"folder={folder}", "--option", f"step_s={pace}")
                programs.client(host.address, name, *of_the_task, task=PACED)
            await host.create(the_study())
            await host.until_over("s")
        return seen(await host.rounds("s"), await host.assignments("s"), await host.events("s"))


def seen(rounds: list[RoundRecord], assignments: list[AssignmentRecord], events: list[Event]) -> Seen:
    (record,) = rounds
    parts = {part.client: part for part in assignments if part.work == "train"}
    return Seen(record, parts, [event for event in events if event.kind == "client_told_to_send"])


async def test_a_client_that_will_miss_is_told_the_same_and_does_the_same(tmp_path: Path) -> None:
    for folder in ("virtual", "real"):
        (tmp_path / folder).mkdir()
    virtual = await asyncio.to_thread(simulated, tmp_path / "virtual")
    real = await over_the_network(tmp_path / "real", virtual.slow)
    assert virtual.facts() == real.facts()
    for each in (virtual, real):
        assert each.told[0].details["projected_finish_s"] > DEADLINE_S
        assert each.told[0].details["steps"] <= each.taken() <= each.told[0].details["steps"] + 1
    # A real step takes its quarter of a second and more, so no more of them fit.
    assert 0 < real.taken() <= virtual.taken() + 1 < STEPS
