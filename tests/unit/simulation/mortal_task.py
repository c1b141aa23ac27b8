"""A task whose clients write down where they are loaded, and can be made to take their process with them."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Batch, ClientData, ClientInfo, Samples, Task

ONCE, ALWAYS, SPARED = "die-once", "die-always", "spared"
"""Files in the folder that the option `data` names: who trains dies, but for the process whose number is in SPARED."""


class Mortal(Task):
    name = "mortal"
    defaults = {"lr": 0.2, "batch_size": 4, "local_epochs": 2}  # noqa: RUF012  # the contract's own form

    def __init__(self) -> None:
        self._folder = Path()

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        # Dropout, so that equal results need equal random numbers.
        return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

    def load_data(self, client: ClientInfo) -> ClientData:
        self._folder = Path(client.options["data"])
        if not self._folder.is_dir():
            raise InvalidInputError(f"There is no folder {self._folder}: give one that exists.")
        (self._folder / f"pid-{os.getpid()}").touch()
        index, _ = client.partition or (0, 1)
        return ClientData(_drawn(5 + 3 * index, index), _drawn(4 + index, 1000 + index))

    def load_held_out(self, options: Mapping[str, str]) -> Samples:
        return _drawn(50, 5000)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        self._die_where_told()
        return super().loss(model, batch)

    def _die_where_told(self) -> None:
        once, always = self._folder / ONCE, self._folder / ALWAYS
        if not (once.exists() or always.exists()) or (self._folder / SPARED).read_text() == str(os.getpid()):
            return
        once.unlink(missing_ok=True)
        os._exit(3)


def _drawn(count: int, seed: int) -> TensorDataset:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(points, (points[:, 0] > 0.5 * points[:, 2]).long())


task = Mortal()
