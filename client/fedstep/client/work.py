"""The contract between the agent, which talks to the coordinator, and what does the work.

The agent knows nothing of torch models, the work nothing of gRPC. `Trainer` is the work of a real client; a benchmark
brings its own.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import grpc
import torch

from fedstep.common.errors import FedstepError
from fedstep.common.hyperparameters import Value
from fedstep.common.tensors import Manifest

Monotonic = Callable[[], float]
"""A clock: seconds that never go back."""


class AbandonedError(FedstepError):
    """The work was told to stop, or ran out of time; nothing is sent."""

    code = grpc.StatusCode.CANCELLED


class DivergedError(FedstepError):
    """The loss is no longer a number; nothing is sent."""

    code = grpc.StatusCode.OUT_OF_RANGE


@dataclass(frozen=True)
class Model:
    """A model as received.

    Attributes:
        manifest: Its layout.
        payload: Its values, uint8 [payload_bytes] on the CPU. Shared: nobody writes to it.
        sha256: Its digest, 32 bytes.
    """

    manifest: Manifest
    payload: torch.Tensor
    sha256: bytes = b""


@dataclass(frozen=True)
class Job:
    """One assignment, as far as the work is concerned.

    Attributes:
        label: Study, trial and round, for messages.
        model: What to start from, or to measure.
        hyperparameters: Those the coordinator sent; defaults are not filled in.
        seed: For shuffling and dropout.
        max_steps: Stop after this many local steps; 0 for no limit.
        local_validation: Measure the model on the local validation set before and after training it.
    """

    label: str
    model: Model
    hyperparameters: Mapping[str, Value]
    seed: int = 0
    max_steps: int = 0
    local_validation: bool = False


@dataclass(frozen=True)
class Trained:
    """The result of a local training.

    Attributes:
        update: trained − received, float32 [elements] on the CPU, contiguous, in the manifest's order. It may share
            memory with what was received.
        samples: Size of the local training set: the update's weight.
        steps: Local steps taken; 0 where they are all that was to be done, however many.
        loss: Mean of the step losses over the last local epoch.
        train_time_s: How long it took.
        validation_loss: The task's loss on the local validation set, before and after; None unless asked for.
    """

    update: torch.Tensor
    samples: int
    steps: int
    loss: float
    train_time_s: float
    validation_loss: tuple[float, float] | None = None


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation: means over the local validation set, and its size."""

    metrics: Mapping[str, float]
    samples: int


class Instruction(Enum):
    """What the coordinator wants of work under way."""

    GO_ON = "go on"
    STOP_AND_SEND = "stop and send"
    ABANDON = "abandon"


@dataclass
class Control:
    """How the event loop steers work in another thread: it writes, the work reads before every local step.

    Attributes:
        deadline_s: When nobody waits any longer, by the clock.
        instruction: What to do from the next local step on.
        reason: Why, for people.
        clock: Monotonic seconds.
    """

    deadline_s: float
    instruction: Instruction = Instruction.GO_ON
    reason: str = ""
    clock: Monotonic = field(default=time.monotonic, repr=False)
    _told: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def tell(self, instruction: Instruction, reason: str) -> None:
        """Changes the plan, and wakes work that rests."""
        self.reason = reason
        self.instruction = instruction
        self._told.set()

    def go_on(self) -> bool:
        """Whether to take another local step; False to stop and send what there is.

        Raises:
            AbandonedError: Told to abandon, or the deadline has passed.
        """
        if self.instruction is Instruction.ABANDON:
            raise AbandonedError(self.reason or "told to abandon")
        if self.clock() >= self.deadline_s:
            raise AbandonedError("ran out of time")
        return self.instruction is Instruction.GO_ON

    def rest(self, seconds: float) -> None:
        """Waits in the working thread: so long, or until it is told to abandon or the deadline passes."""
        until_s = self.clock() + seconds
        while self.instruction is not Instruction.ABANDON:
            left_s = min(until_s, self.deadline_s) - self.clock()
            if left_s <= 0:
                return
            self._told.wait(left_s)
            self._told.clear()

    def time_left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self.deadline_s - self.clock())


class StepSink(Protocol):
    """Takes every local step as it ends."""

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        """One local step: its loss, its samples, its wall-clock milliseconds. Cheap; callable from any one thread."""


class Work(Protocol):
    """What a client does with an assignment.

    What an implementation promises: `train` and `evaluate` may run at the same time in two threads, each at most once;
    they ask `control.go_on()` before every local step or batch; they may raise any error, and an `InvalidInputError`
    means that this client cannot do such work at all.
    """

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        """Trains on the local training set."""

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        """Measures the model on the local validation set."""
