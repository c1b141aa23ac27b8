"""A run: one federated training as far as it has come."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tasks import build_model, full_hyperparameters
from fedstep.common.tensors import Manifest, narrow, pack, sha256, widen
from fedstep.server.aggregation.base import OptimizerState


@dataclass(frozen=True)
class Run:
    """A model, its server optimizer's state and its round count: all that the next round starts from.

    Nothing in it is ever changed: a step gives a new run, so that one can be kept, forked and gone back to.

    Attributes:
        study: What it belongs to.
        trial: The trial's number.
        hyperparameters: Tuned, fixed and default values together.
        manifest: The model's layout.
        weights: float32 [elements].
        model_sha256: The digest of the model's payload.
        norm: L2 norm of the weights.
        optimizer_state: The server optimizer's moments.
        rounds: Rounds behind it.
        average: Exponential average of the weights over the rounds, float32 [elements]; None when none is kept.
    """

    study: StudySpec
    trial: int
    hyperparameters: Hyperparameters
    manifest: Manifest
    weights: torch.Tensor
    model_sha256: bytes
    norm: float
    optimizer_state: OptimizerState = field(default_factory=dict)
    rounds: int = 0
    average: torch.Tensor | None = None

    def payload(self) -> torch.Tensor:
        """The model as it is sent: uint8 [payload_bytes]."""
        return narrow(self.weights, self.manifest)

    def stepped(self, weights: torch.Tensor, optimizer_state: OptimizerState, decay: float = 0.0) -> "Run | None":
        """The run one round later, without its digest yet; None when the weights are not finite.

        Args:
            weights: After the round, float32 [elements].
            optimizer_state: After the round.
            decay: Of the average that is kept; 0 keeps none.
        """
        norm = norm_of(weights)
        if not math.isfinite(norm):
            return None
        # What clients receive is what the next update is added to, also where narrowing rounds.
        weights = widen(narrow(weights, self.manifest), self.manifest)
        average = None
        if decay:
            average = weights if self.average is None else torch.lerp(weights, self.average, decay)
        return replace(
            self,
            weights=weights,
            model_sha256=b"",
            norm=norm,
            optimizer_state=optimizer_state,
            rounds=self.rounds + 1,
            average=average,
        )

    def fork(self, trial: int, hyperparameters: Hyperparameters) -> "Run":
        """The same run under another number, to go on with other hyper-parameters. Nothing is copied."""
        return replace(self, trial=trial, hyperparameters=hyperparameters)

    def of_average(self) -> "Run":
        """The run with its averaged model; itself when none is kept."""
        return self if self.average is None else self._with(self.average)

    def _with(self, weights: torch.Tensor) -> "Run":
        """The run with other weights, as clients will receive them."""
        payload = narrow(weights, self.manifest)
        weights = widen(payload, self.manifest)
        return replace(self, weights=weights, model_sha256=sha256(payload), norm=norm_of(weights))


def resolve(spec: StudySpec, task: Task, point: Hyperparameters) -> dict[str, Value]:
    """Every hyper-parameter of a trial: the point of the space over fixed values over the task's over the standard."""
    return full_hyperparameters(task, {**spec.hyperparameters, **point})


def initial_run(spec: StudySpec, task: Task, trial: int, hyperparameters: Mapping[str, Value]) -> Run:
    """A trial before its first round. The same seed gives every trial the same initial model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        state = build_model(task, hyperparameters).state_dict()
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    weights = widen(payload, manifest)
    return Run(spec, trial, hyperparameters, manifest, weights, sha256(payload), norm_of(weights))


def mean_run(runs: Sequence[Run]) -> Run:
    """The mean of runs of one ancestor: of their weights, their averages, and the moments that all of them have.

    Args:
        runs: At least one; the first one's number, hyper-parameters and round count stay.
    """
    first = runs[0]
    if len(runs) == 1:
        return first
    states = [run.optimizer_state for run in runs]
    moments = {
        name: torch.stack([state[name] for state in states]).mean(0)
        for name in first.optimizer_state
        if all(name in state for state in states)
    }
    averages = [run.average for run in runs if run.average is not None]
    average = torch.stack(averages).mean(0) if len(averages) == len(runs) else None
    mean = first._with(torch.stack([run.weights for run in runs]).mean(0))
    return replace(mean, optimizer_state=moments, average=average)


def norm_of(weights: torch.Tensor) -> float:
    """The L2 norm; not finite when any element is not."""
    return float(torch.linalg.vector_norm(weights))


def default_manifest(task: Task) -> Manifest:
    """The layout of the task's model at its default hyper-parameters: what clients are compared by."""
    with torch.random.fork_rng(devices=[]):
        return Manifest.of(build_model(task, full_hyperparameters(task, {})).state_dict())


def seed_of(*parts: object) -> int:
    """A seed in [0, 2⁶³) drawn from what it is for."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rng_of(*parts: object) -> np.random.Generator:
    """A generator seeded by what it is for."""
    return np.random.default_rng(seed_of(*parts))
