"""The task of a client whose loss rises, but only in its first training; its sixth step waits to be let go."""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Task


class Runaway(Task):
    """A hundred steps a training; each leaves a line in the folder `notes`."""

    name = "runaway"
    defaults = {"batch_size": 1}  # noqa: RUF012  # the contract's own form

    def __init__(self) -> None:
        self._notes: Path | None = None
        self._steps = 0

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(2, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        self._notes = Path(client.options["notes"])
        samples = TensorDataset(torch.zeros(100, 2), torch.zeros(100, dtype=torch.int64))
        return ClientData(samples, samples)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        assert self._notes is not None
        self._steps += 1
        runaway = self._steps <= 100 and not (self._notes / "go").exists()
        with (self._notes / "steps").open("a") as file:
            file.write("runaway\n" if runaway else "steady\n")
        if self._steps == 6:
            deadline = time.monotonic() + 60
            while not (self._notes / "go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        return super().loss(model, batch) * 0 + (10.0 * self._steps if runaway else 1.0)


task = Runaway()
