"""A task so small that a simulated study takes a blink: on which side of a line does a point lie?"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Task


class Points(Task):
    name = "points"
    defaults = {"lr": 0.5, "batch_size": 8}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(2, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        index, _ = client.partition or (0, 1)
        return ClientData(_drawn(16, index), _drawn(8, 1000 + index))

    def load_held_out(self, options: object) -> TensorDataset:
        return _drawn(200, 9999)


def _drawn(count: int, seed: int) -> TensorDataset:
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(points, (points[:, 0] > 0.3 * points[:, 1]).long())


task = Points()
