"""Tidying up takes no model that a study still needs."""

import asyncio
import sqlite3
import threading
from collections.abc import Set
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from e2e.inside import inside
from e2e.studies import spec
from e2e.tiny import Tiny, TinyWork, tiny_agent
from e2e.waiting import until

from fedstep.server.coordination.commits import Commits
from fedstep.server.storage.base import Change, StudyState, TrialState
from fedstep.server.storage.blobs import BlobStore


async def test_a_round_committed_while_another_trial_tidies_up_keeps_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1's first round is committed after trial 0 has decided what may go, and before anything goes."""
    loop = asyncio.get_running_loop()
    decided, committed = asyncio.Event(), threading.Event()
    commit, retain = Commits.make, BlobStore.retain

    async def commit_late(self: Commits, change: Change, *others: Any, **named: Any) -> None:
        held_back = change.round is not None and (change.round.trial, change.round.round) == (1, 0)
        if held_back:
            await asyncio.wait_for(decided.wait(), 20)
        await commit(self, change, *others, **named)
        if held_back:
            loop.call_later(0.1, committed.set)  # once whoever committed has gone on

    def retain_late(self: BlobStore, keep: Set[bytes]) -> int:
        loop.call_soon_threadsafe(decided.set)
        committed.wait(20)
        return retain(self, keep)

    monkeypatch.setattr(Commits, "make", commit_late)
    monkeypatch.setattr(BlobStore, "retain", retain_late)
    async with inside(tmp_path, tasks=[Tiny()]) as host, AsyncExitStack() as clients:
        for name in ("ann", "ben"):
            work = TinyWork(accuracy=lambda job: 0.9 if "trial 1" in job.label else 0.1)
            await clients.enter_async_context(tiny_agent(host.address, name, work))
        budget = {"trials": 2, "rounds_per_trial": 1}
        await host.create(spec(parallel_trials=2, round={"min_clients": 2, "cohort_size": 1}, budget=budget))
        record = await host.until_over("s")
        trials = await host.trials("s")
    assert record.state is StudyState.COMPLETED, record.message
    assert [trial.state for trial in trials] == [TrialState.COMPLETED, TrialState.COMPLETED]


async def test_a_study_that_is_over_at_once_takes_no_model_of_one_that_goes_on_after_it(tmp_path: Path) -> None:
    """Study a was told to stop when the coordinator was killed; b and c were in the middle of a trial."""
    names = ("a", "b", "c")
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            work = await clients.enter_async_context(tiny_agent(host.address, "ann"))
            for name in names:
                await host.create(spec(name=name, budget={"rounds_per_trial": 40}))
                await host.until_event(name, "round_committed")
            work.gate.clear()
        with closing(sqlite3.connect(tmp_path / "fedstep.db")) as database:
            database.execute("UPDATE fedstep_studies SET state = 'stopping' WHERE name = 'a'")
            database.commit()
        work.gate.set()
        async with inside(tmp_path, port=port) as host:
            records = [await host.until_over(name) for name in names]
    assert [record.state for record in records] == [StudyState.STOPPED, StudyState.COMPLETED, StudyState.COMPLETED]


async def test_when_a_study_is_over_its_result_is_the_only_model_left(tmp_path: Path) -> None:
    """It also had the state of its server optimizer, and the models of its other trials."""
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann"):
        budget = {"trials": 2, "rounds_per_trial": 2, "final_rounds": 1}
        await host.create(spec(aggregator={"name": "fedavgm"}, budget=budget))
        record = await host.until_over("s")
        assert record.result is not None
        result = {record.result.model_sha256.hex()}
        await until(
            lambda: {path.stem for path in tmp_path.glob("models/*/*.bin")} == result, "only the result is left"
        )


async def test_a_study_that_goes_on_lets_go_of_the_model_that_it_went_on_from(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            work = await clients.enter_async_context(tiny_agent(host.address, "ann"))
            await host.create(spec(budget={"rounds_per_trial": 10_000}))
            await host.until_event("s", "round_committed")
            work.gate.clear()
        async with inside(tmp_path, port=port) as host:
            (trial,) = await host.trials("s")
            model = host.coordinator.parts.blobs.path(trial.model_sha256)
            assert model.exists()
            work.gate.set()
            await until(lambda: not model.exists(), "the model is gone")
            assert host.coordinator.studies is not None
            assert host.coordinator.studies.under_way("s")
