"""A training that runs away is told to stop within a step; what it reported can be queried."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from e2e.inside import Inside, inside, query
from e2e.processes import Programs, fedstep
from e2e.raw import RawClient, raw_client
from e2e.studies import spec
from e2e.waiting import until, until_true

from fedstep.common.tasks import load_task
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.v1 import fleet_pb2 as pb

RUNAWAY = Path(__file__).parent / "runaway_task.py"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path / "data", tasks=[load_task(str(RUNAWAY))]) as running:
        yield running


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([0.5, math.nan], "loss is nan at step 1"),
        ([0.5, math.inf], "loss is inf at step 1"),
        ([1.0] * 8 + [50.0] * 8, "loss rose from 1.00"),
    ],
    ids=["nan", "inf", "diverging"],
)
async def test_a_loss_that_runs_away_is_answered_by_abandon(host: Inside, losses: list[float], reason: str) -> None:
    async def run_away(client: RawClient, assignment: pb.Assignment) -> None:
        await client.report(assignment.ref, losses)

    async with raw_client(host.address, "wild", run_away) as client:
        await host.create(spec(budget={"rounds_per_trial": 3}))
        (directive,) = await until(lambda: client.directives, "it is told to stop")
        assert directive.kind == pb.DIRECTIVE_KIND_ABANDON
        assert directive.reason.startswith(reason)
        assert directive.ref == client.trainings()[0].ref
        record = await host.until_over("s")
    # The only client of the only trial: no model came of it.
    assert record.state is StudyState.FAILED
    (trial,) = await host.trials("s")
    assert trial.state is TrialState.FAILED
    assert reason in trial.message
    assert [e.details["client"] for e in await host.events("s", "client_diverged")] == ["wild"]
    assert host.faults("wild") == 1


async def test_one_that_runs_away_does_not_end_the_round_of_the_others(host: Inside) -> None:
    async def run_away(client: RawClient, assignment: pb.Assignment) -> None:
        await client.report(assignment.ref, [math.nan])

    async with raw_client(host.address, "sane"), raw_client(host.address, "wild", run_away):
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 2}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [r.updates for r in await host.rounds("s")] == [1, 1]
    assert host.faults("wild") == 2


async def test_reports_of_work_that_is_over_are_answered_by_abandon(host: Inside) -> None:
    async with raw_client(host.address, "late") as client:
        await host.create(spec(budget={"rounds_per_trial": 1}))
        await host.until_over("s")
        await client.report(client.trainings()[0].ref, [0.5])
        (directive,) = await until(lambda: client.directives, "it is told to stop")
    assert directive.kind == pb.DIRECTIVE_KIND_ABANDON


async def test_every_step_can_be_queried_and_a_gap_is_nan(host: Inside) -> None:
    async def with_a_gap(client: RawClient, assignment: pb.Assignment) -> None:
        await client.report(assignment.ref, [3.0, 2.5])
        await client.report(assignment.ref, [2.0], first_step=4)
        await client.report(assignment.ref, [9.0, 9.0, 1.5], first_step=3)  # two of them were told before
        await client.push(assignment.ref)

    async with raw_client(host.address, "a", with_a_gap), raw_client(host.address, "b", with_a_gap):
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 2}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        command = ("study", "steps", "s", "--coordinator", host.address)
        one = await asyncio.to_thread(fedstep, *command, "--round", "1", "--client", "b")
        every = await asyncio.to_thread(fedstep, *command, "--json")
    head, *lines = one.out.splitlines()
    assert head == "trial,round,client,attempt,step,loss,samples,step_ms"
    assert [line.split(",")[:4] for line in lines] == [["0", "1", "b", "1"]] * 6
    assert [line.split(",")[4:6] for line in lines] == [
        *(["0", "3"], ["1", "2.5"], ["2", "nan"], ["3", "nan"], ["4", "2"], ["5", "1.5"])
    ]
    assert [(a["client_name"], a.get("round", 0), len(a["steps"]["loss"])) for a in every.json] == [
        *(("a", 0, 6), ("b", 0, 6), ("a", 1, 6), ("b", 1, 6))
    ]
    rows = query(
        host.folder,
        "SELECT step, loss, nonfinite, samples FROM fedstep_step_view WHERE client = 'b' AND round = 1 ORDER BY step",
    )
    assert rows == [
        (0, 3.0, None, 5),
        (1, 2.5, None, 5),
        (2, None, "NaN", 0),
        (3, None, "NaN", 0),
        (4, 2.0, None, 5),
        (5, 1.5, None, 5),
    ]


async def test_a_client_process_stops_within_a_step(host: Inside, tmp_path: Path) -> None:
    """Its sixth step is under way, and held, when it is told: that one ends, and no other begins."""
    notes = tmp_path / "notes"
    notes.mkdir()
    with Programs(tmp_path / "logs") as programs:
        client = programs.client(host.address, "wild", "--option", f"notes={notes}", task=RUNAWAY)
        guard = {"window": 2, "factor": 2.0, "margin": 1.0}
        await host.create(spec(task="runaway", guard=guard, budget={"trials": 2, "rounds_per_trial": 1}))

        async def told() -> bool:
            # What is said on one stream arrives in order: the next trial's work came after the directive.
            assert not client.ended, client.err
            return client.says("trial 1, round 0: training")

        await until_true(told, "the client has been told to stop, and given other work")
        assert len((notes / "steps").read_text().splitlines()) == 6
        (notes / "go").touch()
        await until(lambda: client.says("trial 0, round 0: abandoned: loss rose"), "it says that it stopped")
        assert (notes / "steps").read_text().splitlines()[:7] in (["runaway"] * 6, [*["runaway"] * 6, "steady"])
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [t.state for t in await host.trials("s")] == [TrialState.FAILED, TrialState.COMPLETED]
    assert "loss rose" in (await host.trials("s"))[0].message
