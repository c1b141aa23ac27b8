"""The examples' own training loops, as a client runs them."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fedstep.client.lightning import step_callback
from fedstep.client.trainer import Trainer
from fedstep.client.vision import load_torchvision
from fedstep.client.work import Control, Instruction, Job, Model
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientInfo, Task
from fedstep.common.tasks import full_hyperparameters, load_task
from fedstep.common.tensors import Manifest, pack

EXAMPLES = Path(__file__).parents[3] / "examples"
HAS_LIGHTNING = importlib.util.find_spec("lightning") is not None


class Steps:
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.samples: list[int] = []

    def step(self, loss: float, samples: int, step_ms: float) -> None:
        self.losses.append(loss)
        self.samples.append(samples)


class Progress:
    """Wants two steps."""

    device = torch.device("cpu")
    seed = 1
    max_steps = 0

    def __init__(self) -> None:
        self.told: list[tuple[float, int]] = []

    def step(self, loss: float | torch.Tensor, samples: int) -> bool:
        self.told.append((float(loss), samples))
        return len(self.told) < 2


def job(task: Task, **values: Any) -> Job:
    torch.manual_seed(3)
    state = task.build_model(full_hyperparameters(task, values)).state_dict()
    manifest = Manifest.of(state)
    return Job("study s", Model(manifest, pack(state, manifest)), values, seed=7)


def trains_and_stops(task: Task) -> None:
    trainer = Trainer(task, task.load_data(ClientInfo("ann", (0, 2))), torch.device("cpu"))
    steps = Steps()
    trained = trainer.train(job(task, local_epochs=3, lr=0.05, batch_size=32), Control(math.inf), steps)
    a_pass = -(-trained.samples // 32)
    assert (trained.steps, len(steps.losses)) == (0, 3 * a_pass)  # all that was to be done, in however many
    assert sum(steps.samples) == 3 * trained.samples
    assert sum(steps.losses[-a_pass:]) < 0.7 * sum(steps.losses[:a_pass])
    assert trained.update.any()

    control = Control(math.inf)

    class Stopping(Steps):
        def step(self, loss: float, samples: int, step_ms: float) -> None:
            super().step(loss, samples, step_ms)
            if len(self.losses) == 2:
                control.tell(Instruction.STOP_AND_SEND, "enough have come")

    assert trainer.train(job(task, local_epochs=3), control, Stopping()).steps == 2


@pytest.mark.parametrize("samples", [-1, 2**32])
def test_a_step_of_an_impossible_number_of_samples_is_refused_with_what_to_do(samples: int) -> None:
    class Wrong(type(load_task(str(EXAMPLES / "own_loop.py")))):  # type: ignore[misc]  # of a file
        def train(self, progress: Any, model: Any, data: Any, hyperparameters: Any) -> None:
            progress.step(1.0, samples)

    task = Wrong()
    trainer = Trainer(task, task.load_data(ClientInfo("ann", (0, 2))), torch.device("cpu"))
    with pytest.raises(InvalidInputError, match=f"a local step of {samples} samples"):
        trainer.train(job(task), Control(math.inf), Steps())


def test_the_examples_own_loop_trains_and_stops() -> None:
    trains_and_stops(load_task(str(EXAMPLES / "own_loop.py")))


@pytest.mark.skipif(not HAS_LIGHTNING, reason="lightning is not installed; its callback is tested with a stand-in")
def test_the_examples_lightning_loop_trains_and_stops() -> None:
    load_torchvision()  # torchmetrics imports torchvision
    trains_and_stops(load_task(str(EXAMPLES / "lightning_loop.py")))


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_the_callback_reports_batches_and_stops_the_trainer(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Callback:
        pass

    class Trainer:
        should_stop = False

    stand_in = ModuleType(package)
    stand_in.Callback = Callback  # type: ignore[attr-defined]
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package.partition(".")[0], ModuleType(package.partition(".")[0]))
    monkeypatch.setitem(sys.modules, package, stand_in)
    progress, trainer = Progress(), Trainer()
    callback = step_callback(progress)
    assert isinstance(callback, Callback)
    batch = (torch.zeros(5, 3), torch.zeros(5))
    callback.on_train_batch_end(trainer, None, {"loss": torch.tensor(2.0)}, batch, 0)
    assert not trainer.should_stop
    callback.on_train_batch_end(trainer, None, torch.tensor(1.0), batch, 1)
    assert trainer.should_stop
    assert progress.told == [(2.0, 5), (1.0, 5)]


def test_lightning_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInputError, match="by Lightning, which is not installed: pip install lightning"):
        step_callback(Progress())
