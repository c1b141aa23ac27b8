"""A run in the model folder: its model and its server optimizer's moments, by content."""

from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import as_bytes, sha256, unpack, widen
from fedstep.server.coordination.run import Run, norm_of, pack_state, resolve, state_manifest
from fedstep.server.storage.base import TrialRecord
from fedstep.server.storage.blobs import BlobStore


def optimizer_digest(run: Run) -> bytes:
    """The digest of the optimizer's state; b"" when it has none."""
    return sha256(pack_state(run.optimizer_state)) if run.optimizer_state else b""


def save(run: Run, optimizer_sha256: bytes, blobs: BlobStore) -> None:
    """Writes what is not there yet; blocks until it is on the disk.

    Args:
        run: The run.
        optimizer_sha256: What `optimizer_digest` gave.
        blobs: The model folder.
    """
    blobs.put(as_bytes(run.payload()), run.model_sha256, run.manifest)
    if optimizer_sha256:
        blobs.put(as_bytes(pack_state(run.optimizer_state)), optimizer_sha256, state_manifest(run.optimizer_state))


def load(spec: StudySpec, task: Task, trial: TrialRecord, blobs: BlobStore) -> Run:
    """A trial's run as it was last committed.

    Raises:
        NotFoundError: Its files are gone.
        DataLossError: They are not what was written.
    """
    manifest = blobs.manifest(trial.model_sha256)
    state = {}
    if trial.optimizer_sha256:
        state = unpack(blobs.get(trial.optimizer_sha256), blobs.manifest(trial.optimizer_sha256))
    weights = widen(blobs.get(trial.model_sha256), manifest)
    return Run(
        study=spec,
        trial=trial.number,
        hyperparameters=resolve(spec, task, trial.hyperparameters),
        manifest=manifest,
        weights=weights,
        model_sha256=trial.model_sha256,
        norm=norm_of(weights),
        optimizer_state=state,
        rounds=trial.rounds,
    )
