"""The task of a client that is slow: its loss sleeps at every local step, or waits while a file is there.

Only training is slow, so that the same client measures at once. Every step begun is a dot in `<folder>/<client>.steps`.
"""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Task

GIVE_UP_S = 60
SAMPLES = 64


class Paced(Task):
    """64 steps of one sample a training. `<folder>/<client>.hold` holds a client in its step, and `.held` says so."""

    name = "paced"
    defaults = {"batch_size": 1}  # noqa: RUF012  # the contract's own form

    def __init__(self) -> None:
        self._path = Path()
        self._step_s = 0.0

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(2, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        self._path = Path(client.options["folder"]) / client.name
        self._step_s = float(client.options.get("step_s", "0"))
        samples = TensorDataset(torch.ones(SAMPLES, 2), torch.zeros(SAMPLES, dtype=torch.int64))
        return ClientData(samples, samples)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if model.training:
            with self._path.with_suffix(".steps").open("a") as steps:
                steps.write(".")
            time.sleep(self._step_s)
            hold = self._path.with_suffix(".hold")
            give_up_at = time.monotonic() + GIVE_UP_S
            while hold.exists() and time.monotonic() < give_up_at:
                self._path.with_suffix(".held").touch()
                time.sleep(0.01)
        return super().loss(model, batch)


task = Paced()
