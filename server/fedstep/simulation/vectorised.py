"""Local training of many clients at once: equal to one by one up to the order of additions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from fedstep.client.models import ModelShelf
from fedstep.client.settings import LocalSettings
from fedstep.client.work import DivergedError, Trained
from fedstep.common.errors import FedstepError
from fedstep.common.hyperparameters import Value
from fedstep.common.standard import STANDARD
from fedstep.common.task import Task
from fedstep.common.tasks import full_hyperparameters
from fedstep.common.tensors import Manifest, widen
from fedstep.simulation.local import Order, Training
from fedstep.simulation.population import CPU, Pool, Population
from fedstep.simulation.schedule import Schedule, Share, padded
from fedstep.simulation.stacked import Forward, stacked_forward


@dataclass(frozen=True)
class Kind:
    """What must be the same for clients to train together.

    Attributes:
        structure: The hyper-parameters that shape the model.
        manifest: The model's layout.
    """

    structure: tuple[tuple[str, Value], ...]
    manifest: Manifest


@dataclass(frozen=True)
class Stackable:
    """An order that can be carried out together with others of its kind."""

    order: Order
    settings: LocalSettings
    kind: Kind


class VectorisedTraining:
    """Trains clients together: one forward and one backward pass for all of them.

    Their parameters do not depend on one another, so the gradient of the sum of their losses holds each client's own.
    Clients of one kind may differ in everything else: weights, learning rate, momentum, weight decay, batch size,
    epochs, steps.

    Args:
        population: The clients.
    """

    def __init__(self, population: Population) -> None:
        self._task = population.task
        self._pool = population.training
        self._validation = population.validation
        self._shelf = ModelShelf(population.task, CPU)
        self._forwards: dict[Kind, Forward | None] = {}
        own = type(population.task)
        self._standard = own.loss is Task.loss and own.optimizer is Task.optimizer and own.train is Task.train
        self._validates = own.metrics is Task.metrics and self._validation is not None and self._validation.labelled

    def stackable(self, order: Order) -> Stackable | None:
        """The order with what it needs to be stacked; None where it must be carried out by itself."""
        pool, job = self._pool, order.job
        if pool is None or not pool.labelled or not self._standard or not pool.sizes[order.client]:
            return None
        values = full_hyperparameters(self._task, job.hyperparameters)
        try:
            settings = LocalSettings.of(values)
        except FedstepError:
            return None  # the trainer says what is wrong
        if settings.optimizer != "sgd" or settings.proximal_mu or settings.gradient_clip:
            return None
        if job.local_validation and not self._validates:
            return None
        structure = tuple(sorted((name, value) for name, value in values.items() if name not in STANDARD))
        kind = Kind(structure, job.model.manifest)
        if kind not in self._forwards:
            self._forwards[kind] = self._forward(values, kind.manifest, pool)
        return Stackable(order, settings, kind) if self._forwards[kind] else None

    def _forward(self, values: dict[str, Value], manifest: Manifest, pool: Pool) -> Forward | None:
        model = self._shelf.for_training(values).train()
        if len(pool.inputs) < 2 or Manifest.of(model.state_dict()).difference(manifest):
            return None
        return stacked_forward(model, manifest, pool.inputs[:2])

    def train(self, work: Sequence[Stackable]) -> list[Training]:
        """The trainings of orders of one kind, in their order."""
        kind, pool = work[0].kind, self._pool
        forward = self._forwards[kind]
        assert forward is not None
        assert pool is not None
        schedule = Schedule.of([_share(one) for one in work], pool)
        work = [work[position] for position in schedule.order]
        received = torch.stack([widen(one.order.job.model.payload, kind.manifest) for one in work])
        weights = received.clone()
        optimizer = _StackedSGD([one.settings for one in work])
        losses = _descend(forward, _views(weights, kind.manifest), optimizer, schedule, pool)
        validation = self._validation_losses(work, forward, received, weights)
        updates = weights.sub_(received)
        found: dict[int, Training] = {}
        for row, (position, one) in enumerate(zip(schedule.order, work, strict=True)):
            told = losses[: schedule.steps[row], row].tolist()
            size = pool.sizes[one.order.client]
            epoch_steps = -(-size // one.settings.batch_size)
            samples = schedule.batch_sizes(row)
            found[position] = _training(updates[row], told, samples, epoch_steps, size, validation[row])
        return [found[position] for position in range(len(found))]

    def _validation_losses(
        self, work: Sequence[Stackable], forward: Forward, received: torch.Tensor, trained: torch.Tensor
    ) -> Sequence[tuple[float, float] | None]:
        """Each client's loss on its validation set before and after, where it was asked for."""
        pool = self._validation
        if pool is None or not any(one.order.job.local_validation for one in work):
            return [None] * len(work)
        samples, weights = padded([one.order.client for one in work], pool)
        manifest = work[0].kind.manifest
        with torch.no_grad():
            before, after = (
                _losses(forward(_views(flat, manifest), pool.inputs[samples]), pool.targets[samples], weights).tolist()
                for flat in (received, trained)
            )
        return [
            (before[row], after[row]) if one.order.job.local_validation and pool.sizes[one.order.client] else None
            for row, one in enumerate(work)
        ]


def _share(one: Stackable) -> Share:
    settings, job = one.settings, one.order.job
    return Share(one.order.client, job.seed, settings.batch_size, settings.local_epochs, job.max_steps)


class _StackedSGD:
    """What `fedstep.client.sgd.PlainSGD` does, with each client's own numbers."""

    def __init__(self, settings: Sequence[LocalSettings]) -> None:
        self._rates = torch.tensor([one.lr for one in settings])
        self._momenta = torch.tensor([one.momentum for one in settings])
        self._decays = torch.tensor([one.weight_decay for one in settings])
        self._has_momentum, self._has_decay = bool(self._momenta.any()), bool(self._decays.any())
        self._velocities: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, parameters: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        """Moves the parameters of the first clients, each [clients, ...]."""
        if self._has_momentum and not self._velocities:
            self._velocities = [torch.zeros_like(parameter) for parameter in parameters]
        for position, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            count, shape = len(parameter), (-1,) + (1,) * (parameter.dim() - 1)
            if self._has_decay:
                gradient = torch.addcmul(gradient, parameter, self._decays[:count].view(shape))
            if self._has_momentum:
                velocity = self._velocities[position][:count]
                gradient = torch.addcmul(gradient, velocity, self._momenta[:count].view(shape), out=velocity)
            parameter.addcmul_(gradient, self._rates[:count].view(shape), value=-1.0)


def _descend(
    forward: Forward, parameters: Sequence[torch.Tensor], optimizer: _StackedSGD, schedule: Schedule, pool: Pool
) -> torch.Tensor:
    """All local steps, in place.

    Args:
        forward: Of the stacked models.
        parameters: Each [clients, ...], the clients in the schedule's order.
        optimizer: Moves them.
        schedule: Who sees what.
        pool: The samples.

    Returns:
        The losses, [steps, clients]; 0 where a client had no step left.
    """
    losses = torch.zeros(schedule.samples.shape[:2])
    for step in range(len(losses)):
        count = schedule.still_training(step)
        training = [parameter[:count].detach().requires_grad_() for parameter in parameters]
        width = schedule.widths[step]
        samples = schedule.samples[step, :count, :width]
        outputs = forward(training, pool.inputs[samples])
        loss = _losses(outputs, pool.targets[samples], schedule.weights[step, :count, :width])
        optimizer.step([one.detach() for one in training], torch.autograd.grad(loss.sum(), training))
        losses[step, :count] = loss.detach()
    return losses


def _losses(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each client's mean cross-entropy, [clients].

    Args:
        outputs: [clients, batch, classes].
        targets: int64 [clients, batch].
        weights: Of the samples in their mean, [clients, batch].
    """
    each = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return (each.view(weights.shape) * weights).sum(1)


def _views(flat: torch.Tensor, manifest: Manifest) -> list[torch.Tensor]:
    """The parameters in the stacked flat vectors, views [clients, ...] into [clients, elements]."""
    parts = torch.split_with_sizes(flat, [tensor.elements for tensor in manifest.tensors], dim=1)
    return [part.view(len(flat), *tensor.shape) for part, tensor in zip(parts, manifest.tensors, strict=True)]


def _training(
    update: torch.Tensor,
    losses: list[float],
    samples: list[int],
    epoch_steps: int,
    size: int,
    validation: tuple[float, float] | None,
) -> Training:
    """One client's result, as `Trainer` would tell it."""
    broken = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if broken is not None:
        error = DivergedError(f"The loss became {losses[broken]} at step {broken}: a lower lr may keep it finite.")
        return Training(None, losses[: broken + 1], samples[: broken + 1], error)
    last = losses[(len(losses) - 1) // epoch_steps * epoch_steps :]
    trained = Trained(update, size, len(losses), math.fsum(last) / len(last), 0.0, validation)
    return Training(trained, losses, samples)
