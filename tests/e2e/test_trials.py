"""Trials beside each other, pruned and stopped, over clients inside the test's own process."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import optuna
import pytest
from e2e.inside import Inside, inside, query
from e2e.processes import fedstep
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until, until_true

from fedstep.client.work import Job
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.server.tuning.base import Arm, ProposeContext
from fedstep.server.tuning.optuna_study import OptunaTuner


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path) as running:
        yield running


async def test_trials_beside_each_other_share_no_client(host: Inside) -> None:
    works = [TinyWork() for _ in range(4)]
    for work in works:
        work.gate.clear()
    async with AsyncExitStack() as clients:
        for number, work in enumerate(works):
            await clients.enter_async_context(tiny_agent(host.address, f"c{number}", work))
        budget = {"trials": 2, "rounds_per_trial": 10_000}
        await host.create(spec(parallel_trials=2, round={"min_clients": 4, "cohort_size": 2}, budget=budget))
        # Nobody can finish: whatever is under way now is under way at the same time.
        await until(lambda: all(work.begun for work in works), "all four train at once")
        cohorts: defaultdict[str, set[str]] = defaultdict(set)
        for member in host.coordinator.parts.fleet.members():
            _, trial, _ = member.busy.split("/", 2)
            cohorts[trial].add(member.name)
        assert sorted(map(len, cohorts.values())) == [2, 2]
        assert set.union(*cohorts.values()) == {"c0", "c1", "c2", "c3"}
        for work in works:
            work.gate.set()

        async def both_get_on() -> bool:
            return [trial.rounds > 2 for trial in await host.trials("s")] == [True, True]

        await until_true(both_get_on, "both trials have a few rounds behind them")
    assert all(len(round_.cohort) == round_.updates == 2 for round_ in await host.rounds("s"))


async def test_a_pruned_trial_ends_early_and_nobody_works_on_it_again(host: Inside) -> None:
    # Every trial but the first does badly from its first round on.
    work = TinyWork(accuracy=lambda job: 0.9 if "trial 0" in job.label else 0.1)
    tuner = {
        "name": "optuna",
        "sampler": "RandomSampler",
        "pruner": "MedianPruner",
        "pruner_options": {"n_startup_trials": 1, "n_warmup_steps": 1},
    }
    async with tiny_agent(host.address, "ann", work):
        await host.create(spec(tuner=tuner, budget={"trials": 3, "rounds_per_trial": 4}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    trials = await host.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETED, TrialState.PRUNED, TrialState.PRUNED]
    assert trials[0].rounds == 4
    assert 1 <= trials[1].rounds < 4
    given: defaultdict[int, set[int]] = defaultdict(set)
    for assignment in await host.assignments("s"):
        given[assignment.trial].add(assignment.round)
    assert {trial: len(rounds) for trial, rounds in given.items()} == {t.number: t.rounds for t in trials}
    rows = query(host.folder, "SELECT number, state FROM trials ORDER BY number")
    assert rows == [(0, "COMPLETE"), (1, "PRUNED"), (2, "PRUNED")]


async def test_a_stopped_study_ends_after_its_round_with_a_result(host: Inside) -> None:
    work = TinyWork()
    async with tiny_agent(host.address, "ann", work):
        await host.create(spec(budget={"trials": 50, "rounds_per_trial": 50}))
        await until(lambda: len(work.trained) > 2, "a few rounds have been trained")
        work.gate.clear()
        begun = work.begun
        await until(lambda: work.begun > begun, "a round is under way")
        under_way = work.begun
        stopped = await asyncio.to_thread(fedstep, "study", "stop", "s", "--coordinator", host.address)
        assert (stopped.code, stopped.out) == (0, "Study s is stopping.\n")
        work.gate.set()
        record = await host.until_over("s")
        shown = await asyncio.to_thread(fedstep, "study", "show", "s", "--coordinator", host.address)
    assert record.state is StudyState.STOPPED
    assert work.begun == under_way  # the round that was under way was the last
    assert len(await host.rounds("s")) == under_way
    assert record.result is not None
    assert record.result.model_path == str(host.folder / "s" / "model.safetensors")
    assert (host.folder / "s" / "model.safetensors").is_file()
    assert "stopped" in shown.out
    assert record.result.model_path in shown.out


async def test_a_study_out_of_time_ends_with_what_it_has(host: Inside) -> None:
    async with tiny_agent(host.address, "ann"):
        await host.create(spec(tuner={"name": "optuna"}, budget={"trials": 1000, "rounds_per_trial": 3, "time": "3s"}))
        record = await host.until_over("s")
    assert record.state is StudyState.COMPLETED
    assert record.result is not None
    assert not [t for t in await host.trials("s") if t.state is TrialState.RUNNING]
    assert query(host.folder, "SELECT count(*) FROM trials WHERE state = 'RUNNING'") == [(0,)]


async def test_a_trial_that_is_asked_for_when_the_time_runs_out_does_not_stay_open(
    host: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = OptunaTuner.propose

    def slow(tuner: OptunaTuner, context: ProposeContext) -> list[Arm]:
        arms = propose(tuner, context)
        time.sleep(3.0)  # as long as the study may take
        return arms

    monkeypatch.setattr(OptunaTuner, "propose", slow)
    async with tiny_agent(host.address, "ann"):
        budget = {"trials": 1000, "rounds_per_trial": 1, "time": "3s"}
        await host.create(spec(tuner={"name": "optuna"}, budget=budget))
        assert (await host.until_over("s")).state is StudyState.FAILED  # it has no model
    assert await host.trials("s") == []
    assert query(host.folder, "SELECT state FROM trials") == [("PRUNED",)]  # as every trial that is given up is told


async def test_a_metric_that_the_task_has_not_is_named(host: Inside) -> None:
    async with tiny_agent(host.address, "ann"):
        await host.create(spec(objective={"metric": "acuracy"}))
        record = await host.until_over("s")
    assert record.state is StudyState.FAILED
    assert "'acuracy'" in record.message
    assert "accuracy" in record.message


async def test_the_loop_lag_is_measured_while_eight_clients_work(host: Inside) -> None:
    async with AsyncExitStack() as clients:
        for number in range(8):
            await clients.enter_async_context(tiny_agent(host.address, f"c{number}"))
        await host.create(spec(round={"min_clients": 8}, budget={"rounds_per_trial": 5}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    lag = host.coordinator.parts.lag
    assert lag.max_ms >= lag.percentile_ms(0.99) > 0
    (ended,) = await host.events("s", "study_completed")
    assert ended.details["loop_lag_ms_p99"] > 0
    assert "lag p99" in ended.text


async def test_the_best_trial_decides_the_final_model(host: Inside) -> None:
    def better_later(job: Job) -> float:
        return 0.3 + 0.1 * int(job.label.split("trial ")[1][0])

    async with tiny_agent(host.address, "ann", TinyWork(better_later)):
        await host.create(
            spec(tuner={"name": "optuna"}, budget={"trials": 3, "rounds_per_trial": 1, "final_rounds": 2})
        )
        record = await host.until_over("s")
    assert record.result is not None
    assert record.result.metrics["accuracy"] == pytest.approx(0.5)
    assert [(r.trial, r.round) for r in await host.rounds("s")] == [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]
    last = (await host.rounds("s"))[-1]
    assert record.result.model_sha256 == last.model_sha256
    told = optuna.load_study(study_name="s", storage=host.coordinator.parts.database_url).user_attrs["delivered"]
    assert told.startswith("Trial 2 after 3 rounds, on the evaluation cohort: accuracy 0.5")


async def test_the_best_final_round_is_known_after_a_restart(tmp_path: Path) -> None:
    """It is the second of four, and the coordinator is stopped after the third."""

    def by_round(job: Job) -> float:
        number = int(job.label.split("round ")[1])
        if number == 3:
            work.gate.clear()  # nobody goes on before the coordinator is back
        return 0.9 if number == 2 else 0.4

    work = TinyWork(by_round)
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            await clients.enter_async_context(tiny_agent(host.address, "ann", work))
            await host.create(spec(budget={"trials": 1, "rounds_per_trial": 1, "final_rounds": 4}))
            await host.until_event("s", "round_committed", lambda event: event.details["round"] == 3)
        work.gate.set()
        async with inside(tmp_path, port=port) as host:
            record = await host.until_over("s")
            rounds = await host.rounds("s")
            (told,) = await host.events("s", "best_final_round")
    assert record.result is not None
    best = max(rounds, key=lambda r: r.value or 0.0)
    assert (best.round, len(rounds)) == (told.details["round"], 5)
    assert record.result.model_sha256 == best.model_sha256
    assert record.result.metrics["accuracy"] == pytest.approx(0.9)
