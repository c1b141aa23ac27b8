"""The task of a client that a test can hold in the middle of a step: while `<gate>/<client>.hold` is there."""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Task

GIVE_UP_S = 60


class Gated(Task):
    """Four steps a training. `<gate>/<client>.held` says that the client waits."""

    name = "gated"

    def __init__(self) -> None:
        self._hold = Path()

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(2, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        self._hold = Path(client.options["gate"]) / f"{client.name}.hold"
        samples = TensorDataset(torch.zeros(64, 2), torch.zeros(64, dtype=torch.int64))
        return ClientData(samples, samples)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if self._hold.exists():
            self._hold.with_suffix(".held").touch()
            give_up_at = time.monotonic() + GIVE_UP_S
            while self._hold.exists() and time.monotonic() < give_up_at:
                time.sleep(0.01)
        return super().loss(model, batch)


task = Gated()
