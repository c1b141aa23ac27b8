"""Arms that go on from others: forked, averaged, measured, asked only; and resumed in the middle."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import torch
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import MANIFEST, Tiny, TinyWork, tiny_agent
from e2e.waiting import until_true

from fedstep.common.spec import StudySpec
from fedstep.common.tensors import widen
from fedstep.server.coordination import checks, study
from fedstep.server.coordination.run import initial_run
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.server.tuning.base import Tuner
from fedstep.server.tuning.program import Program, ProgramTuner

CLIENTS = ("ann", "ben", "cem")


class Walk(ProgramTuner):
    """A question to the clients, two members, a fork of one of them, the mean of the fork, its average."""

    def program(self) -> Program:
        points = ({"lr": 0.01}, {"lr": 0.02}, {"lr": 0.03})
        (asked,) = yield [self.arm(points[0], points=points, rounds=1, discard=True, max_steps=1, clients=3)]
        self.note("window", "All three told.", told=sorted((c.point, len(c.losses)) for c in asked.clients))
        screen = {"rounds": 2, "phase": "screen", "every_round": False, "cohort": 1}
        _, second = yield [self.arm({"lr": 0.1}, **screen), self.arm({"lr": 0.2}, **screen)]
        self.keep(second.arm)
        self.deliver(second.arm)
        fork = {"parents": (second.arm.number,), "rounds": 2, "phase": "fork", "average": 0.5, "cohort": 2}
        left, right = yield [self.arm({"lr": 0.2}, **fork), self.arm({"lr": 0.4}, **fork)]
        self.keep(left.arm, right.arm)
        (mean,) = yield [self.arm({"lr": 0.4}, parents=(left.arm.number, right.arm.number), rounds=0, phase="mean")]
        self.keep(mean.arm)
        yield [self.arm({"lr": 0.4}, parents=(mean.arm.number,), rounds=0, of_average=True)]
        self.note("delivery", "The mean.", losses=dict(mean.losses), spent=self.spent.client_rounds)
        return mean.arm.number


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study is tuned by `Walk`."""

    def create(spec: StudySpec, url: str, defaults: object) -> Tuner:
        return Walk(spec)

    monkeypatch.setattr(study, "create_tuner", create)
    monkeypatch.setattr(checks, "validate_tuner", lambda spec, defaults: None)


async def finished(host: Inside) -> torch.Tensor:
    """What the study's model has added to the initial one, one number an element."""
    record = await host.until_over("s")
    assert record.state is StudyState.COMPLETED, record.message
    assert record.result is not None
    final = widen(host.coordinator.parts.blobs.get(record.result.model_sha256), MANIFEST)
    return final - initial_run(record.spec, Tiny(), 0, {}).weights


EXPECTED = 2 * 0.2 + (2 * 0.2 + 2 * 0.4) / 2
"""Two rounds of the member that was forked, and the mean of two rounds of either child."""


async def test_arms_are_asked_forked_averaged_and_measured(tmp_path: Path, walk: None) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        works = [await clients.enter_async_context(tiny_agent(host.address, name)) for name in CLIENTS]
        await host.create(spec(round={"min_clients": 3}, budget={"trials": 1}))
        change = await finished(host)
        trials = await host.trials("s")
        rounds = await host.rounds("s")
        window, delivery = await host.events("s", "window", "delivery")
    assert torch.allclose(change, torch.full_like(change, EXPECTED), atol=1e-6)
    assert [trial.details.get("parents", []) for trial in trials] == [[], [], [], [2], [2], [3, 4], [5]]
    assert [trial.rounds for trial in trials] == [1, 2, 2, 2, 2, 0, 0]
    assert [trial.first_round for trial in trials] == [0, 0, 0, 2, 2, 4, 4]
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    assert [trial.number for trial in trials if trial.details.get("delivered")] == [5]
    assert window.details["told"] == [[0, 2], [1, 2], [2, 2]]
    assert sorted(job.hyperparameters["lr"] for work in works for job in work.trained if job.max_steps) == [
        0.01,
        0.02,
        0.03,
    ]
    assert delivery.details == {"losses": dict.fromkeys(CLIENTS, 1.0), "spent": 3 * 9}
    assert [len(record.evaluators) for record in rounds if record.trial == 1] == [0, 3]
    assert {(record.trial, record.round) for record in rounds if record.trial == 3} == {(3, 2), (3, 3)}


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6, 8])
async def test_a_study_of_forks_goes_on_where_it_was_cut_off(tmp_path: Path, walk: None, stop_at: int) -> None:
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            works = [await clients.enter_async_context(tiny_agent(host.address, name)) for name in CLIENTS]
            await host.create(spec(round={"min_clients": 3}, budget={"trials": 1}))
            works[0].gate.clear()

            async def enough() -> bool:
                works[0].gate.set()  # one more training
                works[0].gate.clear()
                return len(await host.rounds("s")) >= stop_at

            await until_true(enough, f"{stop_at} rounds are committed")
        for work in works:
            work.gate.set()
        async with inside(tmp_path, port=port) as host:
            change = await finished(host)
            rounds = await host.rounds("s")
            notes = [event.kind for event in await host.events("s", "window", "delivery")]
    assert torch.allclose(change, torch.full_like(change, EXPECTED), atol=1e-6)
    assert len(rounds) == 9
    assert notes == ["window", "delivery"]


async def test_both_children_of_a_fork_train_at_the_same_time_on_halves_of_the_fleet(
    tmp_path: Path, walk: None
) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        works: dict[str, TinyWork] = {}
        for name in ("ann", "ben", "cem", "dan"):
            works[name] = await clients.enter_async_context(tiny_agent(host.address, name))
        await host.create(spec(parallel_trials=2, round={"min_clients": 4, "cohort_size": 2}, budget={"trials": 1}))
        change = await finished(host)
        jobs = [job for work in works.values() for job in work.trained]
    assert torch.allclose(change, torch.full_like(change, EXPECTED), atol=1e-6)
    assert len([job for job in jobs if "trial 3" in job.label]) == 4
    assert len([job for job in jobs if "trial 4" in job.label]) == 4


async def test_a_budget_of_client_rounds_ends_the_study_with_what_would_be_delivered(
    tmp_path: Path, walk: None
) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        for name in CLIENTS:
            await clients.enter_async_context(tiny_agent(host.address, name))
        await host.create(spec(round={"min_clients": 3}, budget={"client_rounds": 3 * 6}))
        change = await finished(host)
        trials = await host.trials("s")
    assert torch.allclose(change, torch.full_like(change, 0.4), atol=1e-6)
    assert [trial.number for trial in trials if trial.details.get("delivered")] == [2]
