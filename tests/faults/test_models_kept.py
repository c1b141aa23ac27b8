"""Tidying up takes no model that a study still needs."""

import asyncio
import threading
from collections.abc import Set
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.studies import spec
from e2e.tiny import Tiny, TinyWork, tiny_agent

from fedstep.server.coordination.study import StudyRunner
from fedstep.server.storage.base import Change, StudyState, TrialState
from fedstep.server.storage.blobs import BlobStore


async def test_a_round_committed_while_another_trial_tidies_up_keeps_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 1's first round is committed after trial 0 has decided what may go, and before anything goes."""
    loop = asyncio.get_running_loop()
    decided, committed = asyncio.Event(), threading.Event()
    commit, retain = StudyRunner._commit, BlobStore.retain

    async def commit_late(self: StudyRunner, change: Change, state: StudyState | None = None) -> None:
        held_back = change.round is not None and (change.round.trial, change.round.round) == (1, 0)
        if held_back:
            await asyncio.wait_for(decided.wait(), 20)
        await commit(self, change, state)
        if held_back:
            loop.call_later(0.1, committed.set)  # once whoever committed has gone on

    def retain_late(self: BlobStore, keep: Set[bytes]) -> int:
        loop.call_soon_threadsafe(decided.set)
        committed.wait(20)
        return retain(self, keep)

    monkeypatch.setattr(StudyRunner, "_commit", commit_late)
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
