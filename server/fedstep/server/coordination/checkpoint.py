"""A run in the model folder: its model, and beside it the server optimizer's moments and the average, by content."""

from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import as_bytes, sha256, unpack, widen
from fedstep.server.aggregation.base import OptimizerState
from fedstep.server.coordination.run import Run, norm_of, pack_state, resolve, state_manifest
from fedstep.server.storage.base import TrialRecord
from fedstep.server.storage.blobs import BlobStore

_AVERAGE = "fedstep.average"
"""The averaged model's name among the moments, in the file beside a model."""


def beside_digest(run: Run) -> bytes:
    """The digest of what a run needs besides its model; b"" when that is nothing."""
    beside = _beside(run)
    return sha256(pack_state(beside)) if beside else b""


def save(run: Run, beside_sha256: bytes, blobs: BlobStore) -> None:
    """Writes what is not there yet; blocks until it is on the disk.

    Args:
        run: The run.
        beside_sha256: What `beside_digest` gave.
        blobs: The model folder.
    """
    blobs.put(as_bytes(run.payload()), run.model_sha256, run.manifest)
    if beside_sha256:
        beside = _beside(run)
        blobs.put(as_bytes(pack_state(beside)), beside_sha256, state_manifest(beside))


def load(spec: StudySpec, task: Task, trial: TrialRecord, blobs: BlobStore) -> Run:
    """A trial's run as it was last committed.

    Raises:
        NotFoundError: Its files are gone.
        DataLossError: They are not what was written.
    """
    manifest = blobs.manifest(trial.model_sha256)
    beside = {}
    if trial.optimizer_sha256:
        beside = unpack(blobs.get(trial.optimizer_sha256), blobs.manifest(trial.optimizer_sha256))
    weights = widen(blobs.get(trial.model_sha256), manifest)
    return Run(
        study=spec,
        trial=trial.number,
        hyperparameters=resolve(spec, task, trial.hyperparameters),
        manifest=manifest,
        weights=weights,
        model_sha256=trial.model_sha256,
        norm=norm_of(weights),
        optimizer_state={name: moment for name, moment in beside.items() if name != _AVERAGE},
        rounds=trial.rounds_behind,
        average=beside.get(_AVERAGE),
    )


def _beside(run: Run) -> OptimizerState:
    return run.optimizer_state if run.average is None else {**run.optimizer_state, _AVERAGE: run.average}
