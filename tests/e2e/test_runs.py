"""Runs stepped from outside, over RunService: real sockets and a real database."""

import asyncio
import functools
import math
import runpy
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e.inside import Inside, inside, query
from e2e.processes import ROOT
from e2e.studies import spec
from e2e.test_same_seed import digits, federation
from e2e.tiny import MANIFEST, SAMPLES, TinyWork, tiny_agent
from e2e.waiting import until, until_true

from fedstep.api.aio import AsyncFedstep, connect
from fedstep.api.runs import AsyncRuns, Runs, RunState
from fedstep.client.work import Control, Job, StepSink, Trained
from fedstep.common.channel import open_channel
from fedstep.common.errors import (
    AlreadyExistsError,
    FedstepError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from fedstep.common.spec import StudySpec
from fedstep.ray import trainable
from fedstep.server.storage.base import StudyState
from fedstep.v1 import run_pb2, run_pb2_grpc, study_pb2

LR = {"lr": 0.1}


class Runaway(TinyWork):
    """Its loss runs away where the learning rate is large."""

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        if float(job.hyperparameters["lr"]) < 0.4:
            return super().train(job, control, steps)
        steps.step(math.inf, 5, 2.0)
        while control.go_on():
            time.sleep(0.01)
        return Trained(torch.zeros(MANIFEST.elements), samples=SAMPLES, steps=1, loss=math.inf, train_time_s=0.01)


def outside(close_after: str = "10m", rounds: int = 50, **changes: Any) -> StudySpec:
    tuner = {"name": "outside", "close_after": close_after, **changes.pop("options", {})}
    return spec(tuner=tuner, budget={"rounds": rounds}, **changes)


@asynccontextmanager
async def stepped(folder: Path, study: StudySpec | None = None, **works: TinyWork) -> AsyncIterator[tuple[Inside, Any]]:
    """A coordinator, a client and a study whose runs are stepped."""
    async with inside(folder) as host, tiny_agent(host.address, "c0", works.get("work")):
        await host.create(study or outside())
        async with AsyncRuns(host.address, "s", patience_s=0) as runs:
            yield host, runs


async def refused(kind: type[FedstepError], call: Any) -> tuple[str, list[str]]:
    """What a call is refused with, and the fields it names."""
    with pytest.raises(kind) as refusal:
        await call
    return refusal.value.message, [violation.field for violation in refusal.value.violations]


async def test_a_study_that_waits_for_its_next_step_can_be_paused(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, runs), connect(host.address) as fedstep:
        run = await runs.open("one")
        first = await runs.step(run.name, LR)
        await fedstep.pause("s")

        async def paused() -> bool:
            return (await host.record("s")).state is StudyState.PAUSED

        await until_true(paused, "the study stands still")
        message, _ = await refused(UnavailableError, runs.step(run.name, LR))
        assert "fedstep study resume s" in message
        assert (await runs.get(run.name)).step == first.step  # what there is can be read
        await fedstep.resume("s")
        second = await runs.step(run.name, LR)
        assert (second.step, second.rounds_behind) == (2, 2)


async def paused(fedstep: AsyncFedstep) -> None:
    """Has the study stand still."""
    await fedstep.pause("s")

    async def stands_still() -> bool:
        return (await fedstep.get("s")).state == study_pb2.STUDY_STATE_PAUSED

    await until_true(stands_still, "the study stands still")


async def test_a_paused_study_is_waited_for_longer_than_a_silent_coordinator(tmp_path: Path) -> None:
    async with (
        stepped(tmp_path) as (host, _),
        connect(host.address) as fedstep,
        AsyncRuns(host.address, "s", patience_s=0.1) as runs,
    ):
        await runs.open("a")
        await paused(fedstep)
        with pytest.raises(TimeoutError, match=r"The study s is paused, so the step is not done after 2 s: go on with"):
            await runs.step("a", LR, step=1, timeout_s=2)
        opening = asyncio.create_task(runs.open("b"))
        assert not (await asyncio.wait({opening}, timeout=2))[0]
        await fedstep.resume("s")
        assert (await opening).name == "b"
        assert (await runs.step("a", LR, step=1)).step == 1
        await fedstep.stop("s")
        await host.until_over("s")
        await refused(PreconditionError, runs.open("c"))


async def test_a_trial_of_rays_waits_for_a_paused_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "Runs", functools.partial(Runs, patience_s=0.1))
    async with stepped(tmp_path) as (host, _), connect(host.address) as fedstep:

        class Trial(trainable.FederatedRun):
            def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]  # as Ray has it
                super().setup(config, address=host.address, study="s")

        trial = await asyncio.to_thread(Trial, LR)
        assert (await asyncio.to_thread(trial.train))["rounds_behind"] == 1
        await paused(fedstep)
        training = asyncio.create_task(asyncio.to_thread(trial.train))
        assert not (await asyncio.wait({training}, timeout=3))[0]
        await fedstep.resume("s")
        assert (await training)["rounds_behind"] == 2
        await asyncio.to_thread(trial.stop)


# the same study ------------------------------------------------------------------------------------------------------


async def trajectory(host: Inside, name: str) -> tuple[Any, ...]:
    """All that a study trained, and what it ended with."""
    record = await host.until_over(name)
    assert record.state is StudyState.COMPLETED
    assert record.result is not None
    trials = [(t.hyperparameters, t.values, t.metrics, t.model_sha256) for t in await host.trials(name)]
    rounds = [
        (r.round, r.value, r.metrics, r.train_loss, r.cohort, r.evaluators, r.model_sha256)
        for r in await host.rounds(name)
    ]
    return trials, rounds, record.result.model_sha256, record.result.metrics


async def random_search(runs: AsyncRuns, study: StudySpec, trials: int, rounds: int, at_once: int) -> list[Any]:
    """What the tuner `random` does, done from outside."""
    results: list[Any] = []
    for number in range(trials):
        point = study.space.sample(np.random.default_rng([study.seed, number]))
        run = await runs.open(f"trial-{number}")
        results += [await runs.step(run.name, point, at_once) for _ in range(rounds // at_once)]
    return results


async def test_random_search_from_outside_and_inside_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    changes = {"selector": {"name": "random"}, "budget": {"trials": 3, "rounds_per_trial": 3}}
    async with federation(tmp_path) as host:
        await host.create(digits("inside", tuner={"name": "random"}, **changes))
        expected = await trajectory(host, "inside")
        budget = {"trials": 1, "rounds_per_trial": 1, "rounds": 9}
        for name, at_once in (("whole", 3), ("by-round", 1)):
            study = digits(name, **{**changes, "tuner": {"name": "outside"}, "budget": budget})
            await host.create(study)
            async with AsyncRuns(host.address, name) as runs:
                results = await random_search(runs, study, 3, 3, at_once)
            found = await trajectory(host, name)
            if at_once == 3:
                assert found == expected
            assert found[1] == expected[1], name  # the best of its arms is one in mid-trial, and another model
            ends = [(r.value, r.metrics, r.model_sha256) for r in results if r.rounds_behind == 3]
            assert ends == [(values[-1], metrics, model) for _, values, metrics, model in expected[0]]


# step, fork, restore --------------------------------------------------------------------------------------------------


async def test_a_run_is_stepped_forked_and_rewound_and_copies_no_model(tmp_path: Path) -> None:
    async with stepped(tmp_path, outside(aggregator={"name": "fedavg"})) as (host, runs):
        a = await runs.open("a")
        assert (a.state, a.step, a.next_step, a.kept_steps, a.result) == (RunState.IDLE, 0, 1, (0,), None)
        one = await runs.step("a", LR, 2)
        assert (one.step, one.trial, one.rounds, one.rounds_behind, one.failed) == (1, 0, 2, 2, "")
        assert one.hyperparameters == LR
        assert one.metrics == {"loss": 1.0, "accuracy": 0.5, "train_loss": 0.5}
        assert one.value == 0.5
        two = await runs.step("a", {"lr": 0.2})
        before = written(host.folder)
        b = await runs.fork("a", 1, "b")
        assert (b.name, b.step, b.result) == ("b", 0, replace_step(one, 0))
        back = await runs.restore("a", 1)
        assert (back.step, back.next_step, back.result) == (1, 3, one)
        moved = await runs.restore("b", 2, source_run="a")
        assert (moved.step, moved.kept_steps, moved.result) == (1, (0, 1), replace_step(two, 1))
        assert written(host.folder) == before
        # The same training from the same model, under two names.
        again = await runs.step("a", {"lr": 0.2})
        assert (again.step, again.model_sha256) == (3, two.model_sha256)
        assert [run.name async for run in runs.list()] == ["a", "b"]
        parents = [t.details.get("parents", []) for t in await host.trials("s")]
        assert parents == [[], [0], [0]]


def written(folder: Path) -> set[tuple[str, int, int]]:
    """Every file of a model, as it was last written."""
    found = ((path, path.stat()) for path in (folder / "models").glob("*/*"))
    return {(path.name, stat.st_ino, stat.st_mtime_ns) for path, stat in found}


def replace_step(result: Any, step: int) -> Any:
    return type(result)(**{**vars(result), "step": step})


async def test_several_runs_are_stepped_at_once(tmp_path: Path) -> None:
    works = [TinyWork(), TinyWork()]
    for work in works:
        work.gate.clear()
    study = outside(parallel_trials=2, round={"cohort_size": 1, "min_clients": 1})
    async with (
        inside(tmp_path) as host,
        tiny_agent(host.address, "c0", works[0]),
        tiny_agent(host.address, "c1", works[1]),
        AsyncRuns(host.address, "s") as runs,
    ):
        await host.create(study)
        steps = []
        for name in ("a", "b"):
            await runs.open(name)
            steps.append(asyncio.create_task(runs.step(name, LR)))
        await until(lambda: all(work.begun for work in works), "both clients train")
        states = [run.state async for run in runs.list()]
        assert states == [RunState.STEPPING, RunState.STEPPING]
        for work in works:
            work.gate.set()
        results = await asyncio.gather(*steps)
    assert {result.trial for result in results} == {0, 1}


async def test_a_call_that_ends_calls_nothing_off_and_the_step_asked_again_is_trained_once(tmp_path: Path) -> None:
    work = TinyWork()
    work.gate.clear()
    async with stepped(tmp_path, work=work) as (host, runs):
        await runs.open("a")
        cancelled = asyncio.create_task(runs.step("a", LR, step=1))
        await until(lambda: work.begun, "a client trains")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(TimeoutError, match="ask for the same step again"):
            await runs.step("a", LR, step=1, timeout_s=0.2)
        work.gate.set()
        first = await runs.step("a", LR, step=1)
        assert first == await runs.step("a", LR, step=1)
        await runs.step("a", LR, step=2)
        assert first == await runs.step("a", LR, step=1)
        assert len(await host.rounds("s")) == 2


async def test_a_program_that_comes_back_in_mid_step_waits_for_it_or_asks_again_by_its_number(tmp_path: Path) -> None:
    """As the guide says."""
    work = TinyWork()
    work.gate.clear()
    async with stepped(tmp_path, work=work) as (host, runs):
        await runs.open("a")
        killed = asyncio.create_task(runs.step("a", LR, 2))
        await until(lambda: work.begun, "a client trains")
        killed.cancel()
        run = await runs.open("a")
        assert run.state == "stepping"
        await refused(PreconditionError, runs.step("a", LR))
        again = asyncio.create_task(runs.step("a", LR, 2, step=run.next_step - 1))
        work.gate.set()
        result = await again

        async def done() -> Any:
            found = await runs.get("a")
            return found if found.state != "stepping" else None

        assert (await until_true(done, "the step is done")).result == result
        assert (await runs.step("a", LR)).step == 2
        assert len(await host.rounds("s")) == 3


async def test_a_step_that_fails_says_why_and_its_run_goes_on(tmp_path: Path) -> None:
    async with stepped(tmp_path, work=Runaway()) as (_, runs):
        await runs.open("a")
        good = await runs.step("a", LR)
        failed = await runs.step("a", {"lr": 0.5})
        assert failed.failed
        assert (failed.step, failed.rounds, failed.value) == (2, 0, None)
        assert failed == await runs.step("a", {"lr": 0.5}, step=2)
        run = await runs.get("a")
        assert (run.step, run.next_step, run.kept_steps, run.result) == (1, 3, (0, 1), good)
        assert (await runs.step("a", LR)).rounds_behind == 2


async def test_models_that_no_run_needs_are_let_go(tmp_path: Path) -> None:
    accuracy = iter([0.9, *[0.1] * 50])
    work = TinyWork(lambda job: next(accuracy))
    async with stepped(tmp_path, outside(options={"keep_steps": 2}), work=work) as (host, runs):
        await runs.open("a")
        results = [await runs.step("a", LR) for _ in range(5)]
        kept = {result.model_sha256 for result in (results[0], *results[-2:])}  # the best, and the latest two
        assert await models(host, kept) == kept
        await runs.close("a")
        await runs.open("b")
        kept = {results[0].model_sha256, (await runs.step("b", {"lr": 0.3})).model_sha256}
        assert await models(host, kept) == kept


async def models(host: Inside, wanted: set[bytes]) -> set[bytes]:
    """The models in the folder, once they are these."""

    def found() -> set[bytes]:
        return {bytes.fromhex(path.stem) for path in (host.folder / "models").glob("*/*.bin")}

    await until(lambda: found() == wanted, "the models that are needed are there, and no others")
    return found()


# the end ------------------------------------------------------------------------------------------------------------


async def test_runs_that_nobody_steps_are_closed_after_the_stated_time(tmp_path: Path) -> None:
    async with stepped(tmp_path, outside(close_after="1s")) as (host, runs):
        await runs.open("a")
        best = await runs.step("a", LR, 2)
        record = await host.until_over("s")
        assert record.state is StudyState.COMPLETED
        assert record.result is not None
        assert record.result.model_sha256 == best.model_sha256
        run = await runs.get("a")
        assert (run.state, run.kept_steps, run.result) == (RunState.CLOSED, (), best)
        assert await runs.step("a", LR, 2, step=1) == best  # its answer is still there
        assert (await runs.close("a")).state is RunState.CLOSED
        text, fields = await refused(PreconditionError, runs.step("a", LR, step=2))
        assert "has ended" in text or "completed" in text
        assert fields == ["study"]


async def test_a_restart_of_the_coordinator_does_not_begin_the_stated_time_anew(tmp_path: Path) -> None:
    study = outside(close_after="1h")
    async with stepped(tmp_path, study) as (host, runs):
        await runs.open("a")
        await runs.step("a", LR)

        def quiet_since() -> list[Any]:
            return query(tmp_path, "SELECT json_extract(tuner_state, '$.quiet_since') FROM fedstep_studies")[0][0]

        before = await until(quiet_since, "since when the study waits is committed")
    async with inside(tmp_path) as host, AsyncRuns(host.address, "s") as runs:
        run = await runs.get("a")
        assert (run.state, run.step) == (RunState.IDLE, 1)
        assert quiet_since() == before
        async with tiny_agent(host.address, "c0"):
            assert (await runs.step("a", LR)).rounds_behind == 2


async def test_a_budget_that_is_used_up_ends_the_study(tmp_path: Path) -> None:
    async with stepped(tmp_path, outside(rounds=2)) as (host, runs):
        await runs.open("a")
        await runs.step("a", LR, 2)
        assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_a_study_is_stopped_while_nobody_steps_it(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, runs):
        await runs.open("a")
        await runs.step("a", LR)
        await host.stop("s")
        assert (await host.until_over("s")).state is StudyState.STOPPED
        assert (await runs.get("a")).state is RunState.CLOSED


async def test_a_study_that_is_stopped_while_it_begins_is_stopped(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        for number in range(12):
            name = f"s{number}"
            await host.create(outside(name=name))
            await asyncio.sleep(0.004 * number)
            await host.stop(name)
            assert (await host.until_over(name, timeout_s=20)).state is StudyState.STOPPED


async def test_of_a_study_that_has_ended_without_runs_nobody_is_told_to_open_one(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, runs):
        await host.stop("s")
        await host.until_over("s")
        text, fields = await refused(NotFoundError, runs.step("a", LR, step=1))
        assert text == "run: the study s has no run 'a': it is stopped; create another study."
        assert fields == ["run"]


async def test_a_study_whose_runs_nobody_opens_says_that_it_was_closed_for_that(tmp_path: Path) -> None:
    async with stepped(tmp_path, outside(close_after="1s")) as (host, _):
        record = await host.until_over("s")
        assert record.state is StudyState.FAILED
        assert record.message.startswith(
            "nobody asked anything of its runs within tuner.close_after, and no trial came"
        )


async def test_a_step_under_way_when_the_study_is_stopped_says_so(tmp_path: Path) -> None:
    work = TinyWork()
    work.gate.clear()
    async with stepped(tmp_path, work=work) as (host, runs):
        await runs.open("a")
        step = asyncio.create_task(runs.step("a", LR, 5))
        await until(lambda: work.begun, "a client trains")
        await host.stop("s")
        work.gate.set()
        result = await step
        assert (result.rounds, result.failed) == (1, "the study was stopped")


async def test_interrupted_runs_are_to_be_asked_again(tmp_path: Path) -> None:
    study = outside(round={"min_clients": 1, "wait_for_clients": "0s"})
    async with inside(tmp_path) as host, AsyncRuns(host.address, "s", patience_s=0) as runs:
        await host.create(study)
        await runs.open("a")
        with pytest.raises(UnavailableError, match="interrupted"):
            await runs.step("a", LR, step=1)
        await host.until_over("s")
        async with tiny_agent(host.address, "c0"):
            await host.create(study)
            assert (await runs.step("a", LR, step=1)).step == 1


async def test_the_example_of_ray_says_in_a_sentence_that_its_study_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = runpy.run_path(str(ROOT / "examples/ray_pbt.py"))
    monkeypatch.setitem(example["main"].__globals__, "STUDY", outside())
    async with stepped(tmp_path) as (host, _):
        await host.stop("s")
        await host.until_over("s")
        with pytest.raises(SystemExit, match=r"^The study s is stopped, and its runs are closed: rename it in .*py\.$"):
            await asyncio.to_thread(example["main"], host.address)


# what is refused -----------------------------------------------------------------------------------------------------


async def test_errors_carry_field_violations(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, runs):
        await runs.open("a")
        assert (await refused(InvalidInputError, runs.step("a", {"lr": 9.0})))[1] == ["hyperparameters.lr"]
        assert (await refused(InvalidInputError, runs.step("a", {"lrr": 0.1})))[1] == [
            "hyperparameters.lr",
            "hyperparameters.lrr",
        ]
        assert (await refused(NotFoundError, runs.get("b")))[1] == ["run"]
        assert (await refused(InvalidInputError, runs.open("a b")))[1] == ["run"]
        assert (await refused(PreconditionError, runs.restore("a", 4)))[1] == ["step"]
        assert (await refused(PreconditionError, runs.fork("a", 4)))[1] == ["step"]
        await runs.step("a", LR, step=1)
        assert (await refused(AlreadyExistsError, runs.step("a", LR, 2, step=1)))[1] == ["step"]
        async with AsyncRuns(host.address, "nosuch") as others:
            for call in (others.open(), others.get("a"), others.step("a", LR, step=1)):
                assert (await refused(NotFoundError, call))[1] == ["study"]
        await host.create(spec(name="r"))
        async with AsyncRuns(host.address, "r") as others:
            text, fields = await refused(PreconditionError, others.open())
        assert "only a study with the tuner outside has runs" in text
        assert fields == ["study"]


async def test_a_value_without_a_kind_is_named(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, _), open_channel(host.address) as channel:
        request = run_pb2.StepRunRequest(study="s", run="a")
        request.hyperparameters["lr"].SetInParent()
        with pytest.raises(Exception, match=r"hyperparameters\.lr: has no value"):
            await run_pb2_grpc.RunServiceStub(channel).StepRun(request, timeout=10)


async def test_runs_are_listed_in_pages(tmp_path: Path) -> None:
    async with stepped(tmp_path) as (host, runs), open_channel(host.address) as channel:
        names = [(await runs.open()).name for _ in range(5)]
        stub = run_pb2_grpc.RunServiceStub(channel)
        seen, token, pages = [], "", 0
        while True:
            request = run_pb2.ListRunsRequest(study="s", page_size=2, page_token=token)
            page = await stub.ListRuns(request, timeout=10)
            seen += [run.name for run in page.runs]
            pages, token = pages + 1, page.next_page_token
            if not token:
                break
    assert (seen, pages) == (names, 3)
