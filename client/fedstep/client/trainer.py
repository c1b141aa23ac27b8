"""Local training and evaluation: one task, one client's data, one device."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fedstep.client.models import ModelShelf, Randomness
from fedstep.client.settings import LocalOptimizer, LocalSettings
from fedstep.client.work import AbandonedError, Control, DivergedError, Evaluated, Job, StepSink, Trained
from fedstep.common import tensors
from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import batches, evaluate, place, sample_count
from fedstep.common.task import Batch, ClientData, Samples, Task
from fedstep.common.tasks import full_hyperparameters
from fedstep.common.tensors import Manifest


class Trainer:
    """The work of a real client (see `fedstep.client.work.Work`).

    The same job on the same data gives the same update, bit for bit, on a CPU with the same number of threads:
    shuffling and dropout come from the job's seed.
    """

    def __init__(
        self, task: Task, data: ClientData, device: torch.device, timer_s: Callable[[], float] = time.perf_counter
    ) -> None:
        """Puts the data on the device.

        Args:
            task: Model, loss and metrics.
            data: The client's own samples.
            device: Where to train.
            timer_s: Seconds, fine enough to time a local step.
        """
        self._task = task
        self._device = device
        self._timer_s = timer_s
        self._train_samples = place(data.train, device)
        self._validation_samples = place(data.validation, device)
        self._models = ModelShelf(task, device)

    def manifest(self) -> Manifest:
        """The layout of the task's model at its default hyper-parameters."""
        return Manifest.of(self._models.for_training(full_hyperparameters(self._task, {})).state_dict())

    @property
    def train_samples(self) -> int:
        """Size of the local training set."""
        return sample_count(self._train_samples)

    @property
    def validation_samples(self) -> int:
        """Size of the local validation set."""
        return sample_count(self._validation_samples)

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        """Trains on the local training set, and reports every local step.

        Raises:
            AbandonedError: Told to, out of time, or told to stop before the first step.
            DivergedError: The loss became NaN or infinite; the step was reported.
            InvalidInputError: The model is not this task's, a hyper-parameter is not legal, or there is no data.
        """
        if not self.train_samples:
            raise InvalidInputError("This client has no training samples: give it a larger share of the data.")
        values = full_hyperparameters(self._task, job.hyperparameters)
        settings = LocalSettings.of(values)
        model = self._models.for_training(values)
        _load(model, job, self._task)
        model.train()
        with self._models.randomness.step():
            torch.manual_seed(job.seed)
        run = _Run(
            task=self._task,
            samples=self._train_samples,
            device=self._device,
            randomness=self._models.randomness,
            timer_s=self._timer_s,
            settings=settings,
            seed=job.seed,
            max_steps=job.max_steps,
            control=control,
            steps=steps,
            model=model,
            optimizer=self._task.optimizer(model, values) or settings.optimizer_for(model),
            received=[parameter.detach().clone() for parameter in model.parameters()] if settings.proximal_mu else [],
        )
        before = self._validation_loss(model, job)
        began_s = self._timer_s()
        run.epochs()
        train_time_s = self._timer_s() - began_s
        model.zero_grad(set_to_none=True)
        after = self._validation_loss(model, job)
        losses = None if before is None or after is None else (before, after)
        return Trained(_difference(model, job), self.train_samples, run.step, run.epoch_loss, train_time_s, losses)

    def _validation_loss(self, model: nn.Module, job: Job) -> float | None:
        """The model's loss on the local validation set, where the job asks for it and there is one."""
        if not job.local_validation or not self.validation_samples:
            return None
        metrics, _ = evaluate(self._task, model, self._validation_samples, self._device)
        return metrics["loss"]

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        """Measures the model on the local validation set.

        Raises:
            AbandonedError: Told to stop, or out of time.
            InvalidInputError: The model is not this task's.
        """

        def before_batch() -> None:
            if not control.go_on():
                raise AbandonedError(control.reason or "told to stop")

        model = self._models.for_evaluating(full_hyperparameters(self._task, job.hyperparameters))
        _load(model, job, self._task)
        metrics, count = evaluate(self._task, model, self._validation_samples, self._device, before_batch=before_batch)
        return Evaluated(metrics, count)


@dataclass
class _Run:
    """One local training under way."""

    task: Task
    samples: Samples
    device: torch.device
    randomness: Randomness
    timer_s: Callable[[], float]
    settings: LocalSettings
    seed: int
    max_steps: int
    control: Control
    steps: StepSink
    model: nn.Module
    optimizer: LocalOptimizer
    received: list[torch.Tensor]
    step: int = 0
    epoch_loss: float = math.nan

    def epochs(self) -> None:
        """All local epochs, or as many as there is leave for."""
        shuffle = torch.Generator().manual_seed(self.seed)
        for _ in range(self.settings.local_epochs):
            losses: list[float] = []
            whole = self._epoch(shuffle, losses)
            if losses:
                self.epoch_loss = math.fsum(losses) / len(losses)
            if not whole:
                break
        if not self.step:
            raise AbandonedError(self.control.reason or "told to stop before the first local step")

    def _epoch(self, shuffle: torch.Generator, losses: list[float]) -> bool:
        """One pass over the training set; False when it was cut short."""
        drawn = batches(self.samples, self.settings.batch_size, shuffle, self.device)
        while not (self.max_steps and self.step >= self.max_steps) and self.control.go_on():
            began_s = self.timer_s()
            batch = next(drawn, None)
            if batch is None:
                return True
            with self.randomness.step():
                loss = self._one_step(batch)
            self.steps.step(loss, len(batch[0]), 1000 * (self.timer_s() - began_s))
            losses.append(loss)
            if not math.isfinite(loss):
                raise DivergedError(f"The loss became {loss} at step {self.step}: a lower lr may keep it finite.")
            self.step += 1
        return False

    def _one_step(self, batch: Batch) -> float:
        """One local step; the batch's loss, without the proximal term."""
        self.model.zero_grad(set_to_none=True)
        loss = self.task.loss(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        if self.received:
            self._pull_back()
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        # Reading the value waits for all that was queued on the device, the optimizer's step included: the step's time
        # is its whole time, on a GPU too.
        return loss.item()

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Adds the gradient of (mu / 2) · ‖w − w₀‖² over the parameters (Li et al. 2020, FedProx, equation 2)."""
        for parameter, origin in zip(self.model.parameters(), self.received, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - origin, alpha=self.settings.proximal_mu)


def _load(model: nn.Module, job: Job, task: Task) -> None:
    """Puts the received values into the model, once the layouts agree."""
    manifest = job.model.manifest
    difference = Manifest.of(model.state_dict()).difference(manifest)
    if difference:
        raise InvalidInputError(
            f"The model of {job.label} is not the one that this client's task {task.name} builds ({difference}): "
            "run the same version of the task on both sides."
        )
    model.load_state_dict(tensors.unpack(job.model.payload, manifest))


@torch.no_grad()
def _difference(model: nn.Module, job: Job) -> torch.Tensor:
    """trained − received over the whole state dict, buffers included: float32 [elements] on the CPU."""
    manifest = job.model.manifest
    trained, received = model.state_dict(), tensors.unpack(job.model.payload, manifest)
    update = torch.empty(manifest.elements, dtype=torch.float32)
    start = 0
    for spec in manifest.tensors:
        part = update[start : start + spec.elements].view(spec.shape)
        start += spec.elements
        now, before = trained[spec.name].to("cpu"), received[spec.name]
        if spec.dtype is torch.float32:
            torch.sub(now, before, out=part)
        else:
            # Whole numbers and half floats: subtracted where neither rounds.
            part.copy_(now.to(torch.float64) - before.to(torch.float64))
    return update
