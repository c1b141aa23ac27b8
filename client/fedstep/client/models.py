"""Models kept between jobs, and torch's global generator shared fairly between the two threads that need it."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fedstep.client.networks import channels_last
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.standard import STANDARD
from fedstep.common.task import Task
from fedstep.common.tasks import build_model

_KEPT = 2
_Key = tuple[tuple[str, Value], ...]


class Randomness:
    """Who may use torch's global generator now.

    Dropout draws from it in the training thread, initial weights in whichever thread builds a model. Drawn from in
    between, the same seed would not give the same update.
    """

    def __init__(self) -> None:
        self._entrance = threading.Lock()
        self._generator = threading.Lock()
        self._turn = _Turn(self)

    def step(self) -> "_Turn":
        """Around the seeding of a training and each of its local steps, whose draws go on where the last one ended."""
        return self._turn

    def take(self) -> None:
        """Begins what `step` is around."""
        with self._entrance:
            pass  # whoever builds stands in it, so that quick steps cannot keep it waiting
        self._generator.acquire()

    def give(self) -> None:
        """Ends it."""
        self._generator.release()

    @contextmanager
    def aside(self, seed: int, device: torch.device) -> Iterator[None]:
        """Around draws from a seed that leave no trace: the CPU's and the device's generator are put back after."""
        others = [device] if device.type == "cuda" else []
        with self._entrance, self._generator, torch.random.fork_rng(others):
            torch.manual_seed(seed)
            yield


class _Turn:
    """A block of `take` and `give`, entered for every local step: a generator would take three times as long."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness

    def __enter__(self) -> None:
        self._randomness.take()

    def __exit__(self, *_: object) -> None:
        self._randomness.give()


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the CPU's generator and the device's: `torch.manual_seed` without a look at every kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


class ModelShelf:
    """The last models built, one set for each of the two threads.

    Building anew for every job would cost more than a short training. A model's values are replaced by each job, so
    only what may change its structure tells one from another: the hyper-parameters that are not fedstep's own.
    What a model keeps outside its state dict must not change in training.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.randomness = Randomness()
        self._task = task
        self._device = device
        self._training: OrderedDict[_Key, nn.Module] = OrderedDict()
        self._evaluating: OrderedDict[_Key, nn.Module] = OrderedDict()

    def for_training(self, values: Hyperparameters) -> nn.Module:
        """A model for the training thread, on the device, with any values."""
        return self._take(self._training, values)

    def for_evaluating(self, values: Hyperparameters) -> nn.Module:
        """A model for the evaluating thread, on the device, with any values."""
        return self._take(self._evaluating, values)

    def _take(self, shelf: OrderedDict[_Key, nn.Module], values: Hyperparameters) -> nn.Module:
        key = tuple(sorted((name, value) for name, value in values.items() if name not in STANDARD))
        model = shelf.get(key)
        if model is None:
            with self.randomness.aside(seed=0, device=self._device):
                model = build_model(self._task, values).to(self._device)
            if self._device.type == "cuda":
                channels_last(model)  # what tensor cores want; on a CPU it is the task's choice
            shelf[key] = model
        shelf.move_to_end(key)
        while len(shelf) > _KEPT:
            shelf.popitem(last=False)
        return model
