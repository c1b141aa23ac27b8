"""A task that writes down how long each of its steps takes by itself: `<times>/<client>.txt`, milliseconds a line."""

import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Task


class Timed(Task):
    """Four steps a training, each with a pause, so that it takes a time that can be told."""

    name = "timed"

    def __init__(self) -> None:
        self._times = Path()

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(2, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        self._times = Path(client.options["times"]) / f"{client.name}.txt"
        samples = TensorDataset(torch.zeros(64, 2), torch.zeros(64, dtype=torch.int64))
        return ClientData(samples, samples)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        began = time.perf_counter()
        time.sleep(0.01)
        loss = super().loss(model, batch)
        if torch.is_grad_enabled():
            with self._times.open("a") as file:
                file.write(f"{1000 * (time.perf_counter() - began)}\n")
        return loss


task = Timed()
