"""Runs written to a model folder and read back, also where the average is the model itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unit.simulation.kit import Clouds, study

from fedstep.common.tensors import sha256
from fedstep.server.coordination import checkpoint
from fedstep.server.coordination.run import Run, initial_run, resolve
from fedstep.server.storage.base import TrialRecord, TrialState
from fedstep.server.storage.blobs import BlobStore
from fedstep.server.storage.memory_blobs import MemoryBlobs

TASK, SPEC = Clouds(), study()


@pytest.fixture(params=[True, False], ids=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "models") if request.param else MemoryBlobs()


def stepped(run: Run, decay: float, **state: torch.Tensor) -> Run:
    after = run.stepped(run.weights + 1, state, decay)
    assert after is not None
    return replace(after, model_sha256=sha256(after.payload()))


def read_back(run: Run, blobs: BlobStore) -> Run:
    beside = checkpoint.beside_of(run)
    checkpoint.save(run, beside, blobs)
    record = TrialRecord(
        0, TrialState.RUNNING, {}, model_sha256=run.model_sha256, optimizer_sha256=beside.sha256, first_round=run.rounds
    )
    return checkpoint.load(SPEC, TASK, record, blobs)


def equal(one: Run, other: Run) -> bool:
    assert one.optimizer_state.keys() == other.optimizer_state.keys()
    assert (one.average is None) == (other.average is None)
    return (
        one.manifest == other.manifest
        and one.rounds == other.rounds
        and torch.equal(one.weights, other.weights)
        and all(torch.equal(moment, other.optimizer_state[name]) for name, moment in one.optimizer_state.items())
        and (one.average is None or other.average is None or torch.equal(one.average, other.average))
    )


def test_runs_come_back_as_they_were(blobs: BlobStore) -> None:
    start = initial_run(SPEC, TASK, 0, resolve(SPEC, TASK, {}))
    runs = [
        start,
        stepped(start, 0.0, momentum=torch.ones_like(start.weights)),
        stepped(start, 0.8),  # the average of one round: the model itself
        stepped(stepped(start, 0.8), 0.8),
        stepped(stepped(start, 0.8), 0.8).of_average(),  # delivered: its model is the average beside its parent
        stepped(start, 0.0, momentum=start.weights + 1),
        stepped(start, 0.0, variance=start.weights + 1),  # the same numbers, and another name
    ]
    for run in runs + runs[::-1]:
        assert equal(read_back(run, blobs), run)


def test_what_needs_nothing_beside_its_model_has_nothing() -> None:
    start = initial_run(SPEC, TASK, 0, resolve(SPEC, TASK, {}))
    assert checkpoint.beside_of(start).sha256 == b""
