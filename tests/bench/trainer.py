"""The trainer beside the same bare PyTorch loop: same batches, same order, same optimizer, one thread.

python -m tests.bench trainer [--pairs 100] [--samples 320] [--epochs 5] [--batch-size 16]

The bare loop takes the steps and reads the losses, and that is all. The trainer does what an assignment asks for: it
loads the received model, draws the batches, obeys the coordinator before every step, times it and reports it, and makes
the update. Pairs alternate which of the two is first. What is compared is CPU time of the thread, which other programs
on the machine disturb least; wall-clock time stands beside it. On a machine that is not quiet read the ratio of the
least times: what other programs add is never less than nothing.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.networks import leaf_cnn, perceptron, small_cnn
from fedstep.client.reporter import Reporter
from fedstep.client.sgd import PlainSGD
from fedstep.client.trainer import Trainer
from fedstep.client.work import Control, Job, Model
from fedstep.common.allocator import keep_freed_memory
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.tensors import Manifest, pack
from fedstep.v1 import fleet_pb2

LR, MOMENTUM = 0.01, 0.9
CLASSES = 10

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: perceptron(64, (64,), CLASSES), (64,)),
    "small_cnn": (lambda: small_cnn(CLASSES), (1, 28, 28)),
    "leaf_cnn": (lambda: leaf_cnn(CLASSES), (1, 28, 28)),
}


class _Made(Task):
    """Random inputs for one of the models."""

    name = "made"

    def __init__(self, model: str, samples: int) -> None:
        self._build, shape = MODELS[model]
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(samples, *shape, generator=generator)
        self.data = TensorDataset(inputs, torch.randint(CLASSES, (samples,), generator=generator))

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return self._build()

    def load_data(self, client: ClientInfo) -> ClientData:
        return ClientData(self.data, self.data)


class Pair:
    """The two loops on one task.

    Args:
        model: Of `MODELS`.
        samples: In the training set.
        epochs: Over them.
        batch_size: Samples a step.
    """

    def __init__(self, model: str, samples: int, epochs: int, batch_size: int) -> None:
        task = _Made(model, samples)
        self._data = task.data
        self._epochs = epochs
        self._batch_size = batch_size
        self._bare_model = task.build_model({}).train()
        self._trainer = Trainer(task, task.load_data(ClientInfo("bench")), torch.device("cpu"))
        self._state = state = task.build_model({}).state_dict()
        manifest = Manifest.of(state)
        values = {"lr": LR, "momentum": MOMENTUM, "batch_size": batch_size, "local_epochs": epochs}
        self._job = Job("bench", Model(manifest, pack(state, manifest)), values, seed=1)

    def reset(self) -> None:
        """Puts the bare loop's model back, as the trainer's is by itself: a step's time depends on its values."""
        self._bare_model.load_state_dict(self._state)

    def bare(self) -> int:
        """The bare loop; how many steps it took."""
        inputs, targets = self._data.tensors
        model, losses = self._bare_model, []
        optimizer = PlainSGD(model.parameters(), LR, MOMENTUM, 0.0)
        shuffle = torch.Generator().manual_seed(1)
        for _ in range(self._epochs):
            order = torch.randperm(len(inputs), generator=shuffle)
            for start in range(0, len(inputs), self._batch_size):
                batch = order[start : start + self._batch_size]
                model.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return len(losses)

    def ours(self) -> int:
        """The trainer; how many steps it took."""
        reporter = Reporter(fleet_pb2.AssignmentRef(), wake=lambda: None)
        return self._trainer.train(self._job, Control(math.inf), reporter).steps


def measured(work: Callable[[], int]) -> tuple[float, float, int]:
    """CPU seconds of this thread, wall-clock seconds, and steps."""
    cpu, wall = time.thread_time(), time.perf_counter()
    steps = work()
    return time.thread_time() - cpu, time.perf_counter() - wall, steps


def compare(pair: Pair, pairs: int) -> str:
    """Ratios of CPU and of wall-clock time, in words."""
    measured(pair.bare), measured(pair.ours)
    cpu, wall, least = [], [], {"bare": math.inf, "ours": math.inf}
    for number in range(pairs):
        pair.reset()
        first, second = (pair.bare, pair.ours) if number % 2 else (pair.ours, pair.bare)
        found = {work.__name__: measured(work) for work in (first, second)}
        bare, ours = found["bare"], found["ours"]
        assert bare[2] == ours[2], "the two loops took other steps"
        cpu.append(ours[0] / bare[0])
        wall.append(ours[1] / bare[1])
        least = {name: min(least[name], found[name][0]) for name in least}
    return (
        f"a bare step takes {1000 * least['bare'] / bare[2]:.3f} ms at least; the trainer over it, {pairs} pairs: CPU "
        f"time {_spread(cpu)}, the least over the least {least['ours'] / least['bare']:.3f}; wall-clock time "
        f"{_spread(wall)}"
    )


def main(arguments: list[str]) -> None:
    """Prints ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench trainer")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["mlp", "small_cnn"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()  # as a client does: page faults are a tenth of a small step, now more, now less
    for name in options.models:
        pair = Pair(name, options.samples, options.epochs, options.batch_size)
        print(f"{name}: {compare(pair, options.pairs)}", flush=True)


def _spread(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"
