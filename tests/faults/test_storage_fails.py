"""A store that fails for a moment, and again when the study is to be taken up."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import PATIENCE_S, until

from fedstep.common.errors import StorageError
from fedstep.server.coordination import studies
from fedstep.server.coordination.studies import Studies
from fedstep.server.storage.base import StudyRecord, StudyState


@asynccontextmanager
async def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Inside, TinyWork, Studies]]:
    """A study of four rounds whose client stands still in the first until its gate is opened; waits are short."""
    monkeypatch.setattr(studies, "TAKEN_UP_AFTER_S", (0.01, 0.01))
    work = TinyWork()
    work.gate.clear()
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann", work):
        running = host.coordinator.studies
        assert running is not None
        await host.create(spec(budget={"trials": 2, "rounds_per_trial": 2}))
        await until(lambda: work.begun, "it trains")
        yield host, work, running


async def test_a_study_is_taken_up_as_soon_as_its_store_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with training(tmp_path, monkeypatch) as (host, work, running):
        store = host.coordinator.parts.store
        left = {"commit": 1, "record": 2}
        commit, record = store.commit, running.record

        def failing_commit(*arguments: Any) -> Any:
            if left["commit"]:
                left["commit"] -= 1
                raise StorageError("The database is away: wait for it.")
            return commit(*arguments)

        async def failing_record(name: str) -> StudyRecord:
            if left["record"]:
                left["record"] -= 1
                raise StorageError("The database is away: wait for it.")
            return await record(name)

        monkeypatch.setattr(store, "commit", failing_commit)
        monkeypatch.setattr(running, "record", failing_record)
        work.gate.set()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        (interrupted,) = await host.events("s", "study_interrupted")
        assert len(await host.rounds("s")) == 4
    assert interrupted.text.endswith("The database is away: wait for it. The study goes on by itself.")
    assert caplog.text.count("study s cannot be taken up again yet") == 2


async def test_a_study_that_was_told_to_stop_stops_although_its_store_failed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with training(tmp_path, monkeypatch) as (host, work, running):
        store = host.coordinator.parts.store
        await running.stop("s")
        left, commit = [1], store.commit

        def failing_commit(*arguments: Any) -> Any:
            if left:
                left.pop()
                raise StorageError("The database is away: wait for it.")
            return commit(*arguments)

        monkeypatch.setattr(store, "commit", failing_commit)
        work.gate.set()
        assert (await host.until_over("s")).state is StudyState.STOPPED
        assert len(await host.rounds("s")) < 4


async def test_a_coordinator_that_is_stopped_while_its_store_fails_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedstep.server.coordination.commits.END_RETRIES_S", (0.0,))
    async with training(tmp_path, monkeypatch) as (host, work, running):
        entered, stopped = threading.Event(), threading.Event()

        def failing_commit(*_: Any) -> Any:
            entered.set()
            stopped.wait(PATIENCE_S)
            raise StorageError("The database is away: wait for it.")

        monkeypatch.setattr(host.coordinator.parts.store, "commit", failing_commit)
        work.gate.set()
        await until(entered.is_set, "it commits")
        draining = asyncio.ensure_future(running.drain())
        await asyncio.sleep(0)
        stopped.set()
        async with asyncio.timeout(PATIENCE_S):
            assert await draining == ["s"]
