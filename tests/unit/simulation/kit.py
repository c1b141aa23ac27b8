"""Small federations for the tests of the simulation."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.task import ClientData, ClientInfo, Samples, Task

CLASSES = 3

STUDY = """\
name = "s"
task = "digits"
[space]
lr = { low = 1e-2, high = 1.0, log = true }
[objective]
metric = "accuracy"
direction = "maximize"
[tuner]
name = "random"
[selector]
name = "random"
[round]
cohort_size = 3
[budget]
trials = 2
rounds_per_trial = 1
"""
"""A study file, as the commands read it."""


class Clouds(Task):
    """Which cloud is a point from? Clients have 5 to 24 points each, so that batches and steps differ."""

    name = "clouds"
    defaults = {"lr": 0.1, "batch_size": 4, "local_epochs": 2, "width": 7}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        width = int(hyperparameters["width"])
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, CLASSES))

    def load_data(self, client: ClientInfo) -> ClientData:
        assert client.partition is not None
        index, _ = client.partition
        return ClientData(points(5 + 7 * index % 20, index), points(3 + index % 4, 1000 + index))

    def load_held_out(self, options: Any) -> Samples | None:
        return points(60, 5000)


def points(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, CLASSES, (count,), generator=generator)
    centres = torch.tensor([[1.0, 0, 0, 1], [0, 1.0, 0, -1], [0, 0, 1.0, 0]])
    return TensorDataset(centres[targets] + torch.randn(count, 4, generator=generator), targets)


def study(**changes: Any) -> StudySpec:
    """A study of the clouds; a table that is given takes the place of the one there."""
    content: dict[str, Any] = {
        "name": "s",
        "task": "clouds",
        "seed": 5,
        "space": {"lr": {"low": 0.01, "high": 0.5, "log": True}},
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "tuner": {"name": "random"},
        "selector": {"name": "random"},
        "round": {"cohort_size": 3, "deadline": "60s"},
        "evaluation": {"cohort_size": 4},
        "budget": {"trials": 2, "rounds_per_trial": 3},
    }
    return StudySpec.model_validate({**content, **changes})
