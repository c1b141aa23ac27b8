"""A task of one's own, whole: is a tumour benign? A logistic model with dropout on 30 measurements.

Try it: `fedstep client --task examples/my_task.py`
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.task import ClientData, ClientInfo, Task


class Tumours(Task):
    """569 patients; every client is a hospital that sees some of them."""

    name = "tumours"
    defaults = {"lr": 0.1, "dropout": 0.1}  # a study may tune `dropout`  # noqa: RUF012

    def build_model(self, hyperparameters):
        """The model, at these hyper-parameters."""
        return nn.Sequential(nn.Dropout(hyperparameters["dropout"]), nn.Linear(30, 2))

    def load_data(self, client: ClientInfo):
        """The samples of one client, for training and for validation."""
        inputs, targets = (torch.from_numpy(array) for array in load_breast_cancer(return_X_y=True))
        inputs = ((inputs - inputs.mean(dim=0)) / inputs.std(dim=0)).float()
        index, count = client.partition or (0, 1)  # from --partition I/N
        mine = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))[index::count]
        validation, train = mine[: len(mine) // 5], mine[len(mine) // 5 :]
        return ClientData(
            train=TensorDataset(inputs[train], targets[train]),
            validation=TensorDataset(inputs[validation], targets[validation]),
        )


task = Tumours()
