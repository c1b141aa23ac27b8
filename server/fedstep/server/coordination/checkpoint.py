"""A run in the model folder: its model, and beside it the server optimizer's moments and the average, by content.

Two files of the same content are one file. What is beside a model may be the model's own numbers (an average after the
first round, or of a run whose averaged model is delivered), so it holds its tensors' names as well.
"""

import json
from dataclasses import dataclass

import torch

from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import Manifest, as_bytes, pack, sha256, unpack, widen
from fedstep.server.coordination.run import Run, norm_of, resolve
from fedstep.server.storage.base import TrialRecord
from fedstep.server.storage.blobs import BlobStore

_AVERAGE = "fedstep.average"
"""The averaged model's name among the moments, in the file beside a model."""

_NAMES = "fedstep.names"
"""The names of all others in that file, as JSON: what has other names is another file."""


@dataclass(frozen=True)
class Beside:
    """What a run needs besides its model.

    Attributes:
        manifest: Its layout; without tensors when a run needs nothing.
        payload: uint8 [payload_bytes].
        sha256: The payload's digest; b"" when a run needs nothing.
    """

    manifest: Manifest
    payload: torch.Tensor
    sha256: bytes


def beside_of(run: Run) -> Beside:
    """What a run needs besides its model."""
    state = dict(sorted(run.optimizer_state.items()))
    if run.average is not None:
        state[_AVERAGE] = run.average
    if state:
        names = json.dumps([*state]).encode()
        state[_NAMES] = torch.frombuffer(bytearray(names), dtype=torch.uint8)
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    return Beside(manifest, payload, sha256(payload) if state else b"")


def save(run: Run, beside: Beside, blobs: BlobStore) -> None:
    """Writes what is not there yet; blocks until it is on the disk.

    Args:
        run: The run.
        beside: What `beside_of` gave.
        blobs: The model folder.
    """
    blobs.put(as_bytes(run.payload()), run.model_sha256, run.manifest)
    if beside.sha256:
        blobs.put(as_bytes(beside.payload), beside.sha256, beside.manifest)


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
        optimizer_state={name: moment for name, moment in beside.items() if name not in (_AVERAGE, _NAMES)},
        rounds=trial.rounds_behind,
        average=beside.get(_AVERAGE),
    )
