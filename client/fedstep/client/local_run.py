"""One local training: by fedstep's own loop, or by a task's."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fedstep.client.device import Compute
from fedstep.client.models import Randomness
from fedstep.client.settings import LocalOptimizer, LocalSettings
from fedstep.client.step_log import StepLog, meter_for
from fedstep.client.work import AbandonedError, Control
from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import batches
from fedstep.common.raised import kind_of
from fedstep.common.task import Batch, Samples, Task

_MOST_SAMPLES = 2**32 - 1
"""Of a step: the protocol has 32 bits for it."""


def _wrong(loss: object) -> str:
    """What a loss is that training cannot work with; "" for one that it can."""
    if not isinstance(loss, torch.Tensor):
        return kind_of(loss)
    if loss.numel() != 1:
        return f"a tensor of {loss.numel()} numbers"
    return "" if loss.requires_grad else "a tensor without a gradient"


@dataclass
class StandardRun:
    """fedstep's own loop.

    Attributes:
        task: Its loss.
        samples: What is passed over.
        compute: Where, and in which precision.
        randomness: Who may draw from torch's generator.
        timer_s: Times the steps.
        settings: How to train.
        seed: Of the shuffling.
        max_steps: 0 for no limit.
        control: The coordinator's will.
        log: Takes the steps.
        model: What is trained, in place.
        optimizer: Moves it.
    """

    task: Task
    samples: Samples
    compute: Compute
    randomness: Randomness
    timer_s: Callable[[], float]
    settings: LocalSettings
    seed: int
    max_steps: int
    control: Control
    log: StepLog
    model: nn.Module
    optimizer: LocalOptimizer

    def __post_init__(self) -> None:
        self._parameters = list(self.model.parameters())
        self._received = [p.detach().clone() for p in self._parameters] if self.settings.proximal_mu else []
        self._meter = meter_for(self.compute.device, self.log, self.timer_s)
        self._taken = 0

    def train(self) -> float:
        """All local epochs, or as many as there is leave for; the mean loss of the last one.

        Raises:
            AbandonedError: Told to, out of time, or told to stop before the first step.
            DivergedError: The loss became NaN or infinite; the step was reported.
        """
        shuffle = torch.Generator().manual_seed(self.seed)
        begins = 0  # of the last epoch that has a step
        for _ in range(self.settings.local_epochs):
            before = self._taken
            whole = self._epoch(shuffle)
            if self._taken > before:
                begins = before
            if not whole:
                break
        self._meter.finish()
        if not self._taken:
            raise AbandonedError(self.control.reason or "told to stop before the first local step")
        last = self.log.losses[begins:]
        return math.fsum(last) / len(last)

    def _epoch(self, shuffle: torch.Generator) -> bool:
        """One pass over the training set; False when it was cut short."""
        drawn = batches(self.samples, self.settings.batch_size, shuffle, self.compute.device)
        meter, turn, go_on = self._meter, self.randomness.step(), self.control.go_on
        while not (self.max_steps and self._taken >= self.max_steps) and go_on():
            meter.begin()
            batch = next(drawn, None)
            if batch is None:
                return True
            with turn:
                loss = self._one_step(batch)
            self._taken += 1
            meter.end(loss, batch[0].size(0))
        return False

    def _one_step(self, batch: Batch) -> torch.Tensor:
        """One local step; the batch's loss, without the proximal term."""
        for parameter in self._parameters:
            parameter.grad = None
        if self.compute.bfloat16:
            with self.compute.autocast():
                loss = self.task.loss(self.model, batch)
        else:
            loss = self.task.loss(self.model, batch)
        if wrong := _wrong(loss):
            raise InvalidInputError(
                f"The loss() of the task {self.task.name} returned {wrong}: let it return a tensor of one number, "
                "computed by the model."
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        if self._received:
            self._pull_back()
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self._parameters, self.settings.gradient_clip)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Adds the gradient of (mu / 2) · ‖w − w₀‖² over the parameters (Li et al. 2020, FedProx, equation 2)."""
        for parameter, origin in zip(self._parameters, self._received, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - origin, alpha=self.settings.proximal_mu)


class OwnRun:
    """The progress of a loop of the task's own (see `fedstep.common.progress.Progress`).

    Attributes:
        device: Where the model is.
        seed: Of this training.
        max_steps: 0 for no limit.
    """

    def __init__(
        self,
        device: torch.device,
        seed: int,
        max_steps: int,
        control: Control,
        log: StepLog,
        randomness: Randomness,
        timer_s: Callable[[], float],
    ) -> None:
        self.device = device
        self.seed = seed
        self.max_steps = max_steps
        self._control = control
        self._log = log
        self._randomness = randomness
        self._timer_s = timer_s
        self._began_s = 0.0
        self._over = False

    def train(self, loop: Callable[[], None], task: str) -> None:
        """Runs the loop.

        Raises:
            AbandonedError: Told to, out of time, or told to stop before the first step.
            DivergedError: The loss became NaN or infinite; the step was reported.
            InvalidInputError: The loop reported no step.
        """
        if not self._control.go_on():
            raise AbandonedError(self._control.reason or "told to stop before the first local step")
        self._randomness.take()
        self._began_s = self._timer_s()
        try:
            loop()
        finally:
            self._randomness.give()
        if not self._log.losses:
            raise InvalidInputError(
                f"The train() of the task {task} reported no step: let it call progress.step(loss, samples) after each."
            )

    @property
    def stopped(self) -> bool:
        """Whether the loop was told that no other step is wanted."""
        return self._over

    def step(self, loss: float | torch.Tensor, samples: int) -> bool:
        """See `Progress.step`."""
        value = loss.item() if isinstance(loss, torch.Tensor) else float(loss)
        took_s = self._timer_s() - self._began_s
        if self._over:
            raise InvalidInputError(
                "A train() went on after progress.step() had answered False: let it return when it does."
            )
        samples = operator.index(samples)
        if not 0 <= samples <= _MOST_SAMPLES:
            raise InvalidInputError(
                f"A train() reported a local step of {samples} samples: let it call progress.step(loss, samples) with "
                "the number of samples in its batch."
            )
        self._randomness.give()
        try:
            self._log.add(value, samples, 1000 * took_s)
            enough = bool(self.max_steps) and len(self._log.losses) >= self.max_steps
            self._over = enough or not self._control.go_on()
        finally:
            self._randomness.take()
        self._began_s = self._timer_s()
        return not self._over
