"""`fedstep study explain`: of a study that has ended, of one under way, of one tuned by trials."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.processes import Ran, fedstep
from e2e.studies import spec
from e2e.tiny import tiny_agent
from e2e.waiting import until_true

from fedstep.common.spec import StudySpec
from fedstep.server.coordination import checks, study
from fedstep.server.storage.base import StudyState
from fedstep.server.tuning.base import Tuner
from fedstep.server.tuning.program import Program, ProgramTuner


class Duel(ProgramTuner):
    """A screen of two, a fork that is adopted, a leg that is gone back on, and the last one."""

    def program(self) -> Program:
        best, other = yield [self.arm({"lr": lr}, rounds=2, phase="screen") for lr in (0.1, 0.4)]
        self.note("elimination", "Arm 1 leaves.", arms=[other.arm.number, best.arm.number], z=2.5, clients=1)
        self.keep(best.arm)
        self.deliver(best.arm)
        fork = {"parents": (best.arm.number,), "rounds": 1, "phase": "fork", "cohort": 1}
        stays, moves = yield [self.arm({"lr": lr}, **fork) for lr in (0.1, 0.2)]
        evidence = {"arms": [moves.arm.number, stays.arm.number], "z": -1.5, "mean_difference": -0.03, "clients": 20}
        self.note("adoption", "The challenger is adopted.", **evidence)
        self.keep(moves.arm)
        self.deliver(moves.arm)
        head = moves.arm.number
        (hurt,) = yield [self.arm({"lr": 0.2}, parents=(head,), rounds=1, phase="advance", cohort=2)]
        self.note("rewind", "Back to arm 3.", arms=[head, hurt.arm.number])
        (last,) = yield [self.arm({"lr": 0.12}, parents=(head,), rounds=2, phase="advance", cohort=3)]
        self.note("delivery", "The last one.", arms=[last.arm.number])
        return last.arm.number


@pytest.fixture
def duel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every study is tuned by `Duel`."""

    def create(spec: StudySpec, *others: object) -> Tuner:
        return Duel(spec)

    monkeypatch.setattr(study, "create_tuner", create)
    monkeypatch.setattr(checks, "validate_tuner", lambda spec, *others: None)


async def asked(address: str, *arguments: str) -> Ran:
    """What a person reads who runs the command meanwhile."""
    return await asyncio.to_thread(fedstep, "study", *arguments, "--coordinator", address)


async def test_every_decision_is_told_with_its_evidence_and_then_the_schedule(tmp_path: Path, duel: None) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        await clients.enter_async_context(tiny_agent(host.address, "ann"))
        await host.create(spec(tuner={"name": "stepwise"}, budget={"rounds": 20}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        ran, words = await asked(host.address, "explain", "s", "--json"), await asked(host.address, "explain", "s")
        table = await asked(host.address, "trials", "s")
    assert ran.code == 0, ran.err
    decisions = [line["decision"] for line in ran.json if "decision" in line]
    assert [(one["kind"], one["round"], one["phase"]) for one in decisions] == [
        ("elimination", 4, "screen"),
        ("adoption", 6, "fork"),
        ("rewind", 7, "advance"),
        ("delivery", 9, "advance"),
    ]
    assert decisions[1]["evidence"] == {"z": -1.5, "mean_difference": -0.03, "clients": 20}
    assert decisions[1]["changes"] == {"lr": [0.1, 0.2]}
    assert decisions[2]["changes"] == {"lr": [0.2, 0.12]}
    stretches = [line["stretch"] for line in ran.json if "stretch" in line]
    assert [(one["first_round"], one["rounds"], one["hyperparameters"]) for one in stretches] == [
        (1, 2, {"lr": 0.1}),
        (3, 1, {"lr": 0.2}),
        (4, 2, {"lr": 0.12}),
    ]
    for text in (
        "s: completed; task tiny, tuner stepwise; 9 of 20 rounds, 6 arms",
        "The challenger is adopted.",
        "z −1.5, mean difference −0.03, n 20",
        "lr 0.1 → 0.2",
        "The model: trial 5, 5 rounds behind it, trained with",
        "lr 0.2 → 0.12",
    ):
        assert text in words.out
    assert table.out.splitlines()[4].split() == ["3", "fork", "0", "completed", "3–3", "0.5000", "lr=0.2"]
    assert (tmp_path / "s" / "study.png").read_bytes().startswith(b"\x89PNG")


async def test_a_study_under_way_is_explained_as_far_as_it_is(tmp_path: Path, duel: None) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        work = await clients.enter_async_context(tiny_agent(host.address, "ann"))
        work.gate.clear()
        await host.create(spec(tuner={"name": "stepwise"}, budget={"rounds": 20}))

        async def eliminated() -> bool:
            work.gate.set()  # one more training
            work.gate.clear()
            return bool(await host.events("s", "elimination"))

        await until_true(eliminated, "an arm has left")
        ran = await asked(host.address, "explain", "s")
        assert (await host.record("s")).state is StudyState.RUNNING
        work.gate.set()
        await host.until_over("s")
    assert ran.code == 0, ran.err
    assert "s: running" in ran.out
    assert "Arm 1 leaves." in ran.out
    assert "The best model so far: trial" in ran.out


async def test_a_study_of_trials_has_a_sensible_explanation_too(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        await clients.enter_async_context(tiny_agent(host.address, "ann"))
        await host.create(spec(budget={"trials": 2, "rounds_per_trial": 2, "final_rounds": 1}))
        await host.until_over("s")
        ran = await asked(host.address, "explain", "s")
        unknown = await asked(host.address, "explain", "t")
    assert ran.code == 0, ran.err
    assert "2 of 2 trials" in ran.out
    assert "final rounds" in ran.out
    assert "3 rounds behind it, trained with" in ran.out
    assert unknown.code == 2
    assert "There is no study named 't'" in unknown.err
