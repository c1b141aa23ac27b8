"""Local training and evaluation: one task, one client's data, one device."""

import time
from collections.abc import Callable

import torch
from torch import nn

from fedstep.client.device import Compute, near
from fedstep.client.local_run import OwnRun, StandardRun
from fedstep.client.models import ModelShelf, seed_generators
from fedstep.client.settings import LocalSettings
from fedstep.client.step_log import StepLog
from fedstep.client.work import AbandonedError, Control, Evaluated, Job, Model, StepSink, Trained
from fedstep.common import tensors
from fedstep.common.errors import ExhaustedError, InvalidInputError
from fedstep.common.evaluate import evaluate, sample_count
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, Task
from fedstep.common.tasks import full_hyperparameters
from fedstep.common.tensors import Manifest


class Trainer:
    """The work of a real client (see `fedstep.client.work.Work`).

    The same job on the same data gives the same update, bit for bit, on a CPU with the same number of threads:
    shuffling and dropout come from the job's seed.
    """

    def __init__(
        self,
        task: Task,
        data: ClientData,
        device: torch.device,
        timer_s: Callable[[], float] = time.perf_counter,
        bfloat16: bool = False,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Puts the data on the device, where they are small enough.

        Args:
            task: Model, loss and metrics.
            data: The client's own samples.
            device: Where to train.
            timer_s: Seconds, fine enough to time a local step.
            bfloat16: Trains by mixed precision; what is measured is measured in float32 all the same.
            prepare: Called before each job, in the thread that does it.
        """
        self._task = task
        self._own_data = data if type(task).train is not Task.train else None
        self._compute = Compute(device, bfloat16)
        self._timer_s = timer_s
        self._prepare = prepare
        self._train_samples = near(data.train, device)
        self._validation_samples = near(data.validation, device)
        self._models = ModelShelf(task, device)

    def manifest(self) -> Manifest:
        """The layout of the task's model at its default hyper-parameters."""
        return Manifest.of(self._default_model().state_dict())

    def initial(self) -> Model:
        """A model of the task's at its default hyper-parameters."""
        state = self._default_model().state_dict()
        manifest = Manifest.of(state)
        return Model(manifest, tensors.pack(state, manifest))

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
            ExhaustedError: The device's memory is used up.
        """
        if not self.train_samples:
            raise InvalidInputError("This client has no training samples: give it a larger share of the data.")
        self._prepare()
        try:
            return self._trained(job, control, StepLog(steps))
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error

    def _default_model(self) -> nn.Module:
        return self._models.for_training(full_hyperparameters(self._task, {}))

    def _trained(self, job: Job, control: Control, log: StepLog) -> Trained:
        values = full_hyperparameters(self._task, job.hyperparameters)
        model = self._models.for_training(values)
        _load(model, job, self._task)
        model.train()
        before = self._validation_loss(model, job)
        with self._models.randomness.step():
            seed_generators(job.seed, self._compute.device)
        train = self._standard_loop if self._own_data is None else self._own_loop
        began_s = self._timer_s()
        loss, whole = train(model, values, job, control, log)
        train_time_s = self._timer_s() - began_s
        model.zero_grad(set_to_none=True)
        after = self._validation_loss(model, job)
        losses = None if before is None or after is None else (before, after)
        steps = 0 if whole else len(log.losses)
        return Trained(_difference(model, job), self.train_samples, steps, loss, train_time_s, losses)

    def _standard_loop(
        self, model: nn.Module, values: Hyperparameters, job: Job, control: Control, log: StepLog
    ) -> tuple[float, bool]:
        """Its loss, and that its steps are those that were asked for, and count as such."""
        settings = LocalSettings.of(values)
        run = StandardRun(
            task=self._task,
            samples=self._train_samples,
            compute=self._compute,
            randomness=self._models.randomness,
            timer_s=self._timer_s,
            settings=settings,
            seed=job.seed,
            max_steps=job.max_steps,
            control=control,
            log=log,
            model=model,
            optimizer=self._task.optimizer(model, values) or settings.optimizer_for(model),
        )
        return run.train(), False

    def _own_loop(
        self, model: nn.Module, values: Hyperparameters, job: Job, control: Control, log: StepLog
    ) -> tuple[float, bool]:
        """Its loss, and whether it ended by itself: then all of it is done, in however few steps."""
        device, data = self._compute.device, self._own_data
        assert data is not None
        run = OwnRun(device, job.seed, job.max_steps, control, log, self._models.randomness, self._timer_s)
        try:
            run.train(lambda: self._task.train(run, model, data, values), self._task.name)
        finally:
            model.to(device)  # a loop may leave it elsewhere
        return log.loss_of_last_pass(self.train_samples), not run.stopped

    def _validation_loss(self, model: nn.Module, job: Job) -> float | None:
        """The model's loss on the local validation set, where the job asks for it and there is one."""
        if not job.local_validation or not self.validation_samples:
            return None
        metrics, _ = evaluate(self._task, model, self._validation_samples, self._compute.device)
        return metrics["loss"]

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        """Measures the model on the local validation set.

        Raises:
            AbandonedError: Told to stop, or out of time.
            InvalidInputError: The model is not this task's.
            ExhaustedError: The device's memory is used up.
        """

        def before_batch() -> None:
            if not control.go_on():
                raise AbandonedError(control.reason or "told to stop")

        self._prepare()
        try:
            model = self._models.for_evaluating(full_hyperparameters(self._task, job.hyperparameters))
            _load(model, job, self._task)
            metrics, count = evaluate(
                self._task, model, self._validation_samples, self._compute.device, before_batch=before_batch
            )
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error
        return Evaluated(metrics, count)

    def _out_of_memory(self) -> ExhaustedError:
        """The sentence; what this process holds for later is given back, for others that share the device."""
        if self._compute.device.type == "cuda":
            torch.cuda.empty_cache()
        return ExhaustedError(
            f"The memory of {self._compute.device} is used up: run fewer clients on it, or give this one --device cpu."
        )


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
