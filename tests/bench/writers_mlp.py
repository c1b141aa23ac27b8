"""The pilot's federation: real writers' digits at 14 × 14 pixels, and a perceptron with 96 hidden units.

A task, for `fedstep compare --task tests/bench/writers_mlp.py`. Data and split are those of the built-in task
mnist-writers, and so are the options.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.tasks.mnist_writers import MnistWriters
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Samples

_MEAN, _DEVIATION = 0.1307, 0.3081
"""Of MNIST's pixels."""


class WritersMlp(MnistWriters):
    """Which digit is it? On images [samples, 196] float32 in [0, 1], each pixel the mean of 2 × 2.

    A client trains on all its digits and measures on all of them: with step-wise tuning whoever measures a generation
    did not train in it, so nothing has to be kept back. (The built-in task keeps 15 %: with seventeen digits a client,
    evidence is several times noisier.)
    """

    name = "writers-mlp"
    defaults = {"lr": 0.05, "batch_size": 16, "local_epochs": 2, "server_momentum": 0.0}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """One hidden layer: 19,882 parameters."""
        return nn.Sequential(nn.Linear(196, 96), nn.ReLU(), nn.Linear(96, 10))

    def load_data(self, client: ClientInfo) -> ClientData:
        """The digits of the client's writers, at half the resolution, for both."""
        data = super().load_data(client)
        inputs, targets = zip(*(part.tensors for part in (data.train, data.validation)), strict=True)
        every = _halved(TensorDataset(torch.cat(inputs), torch.cat(targets)))
        return ClientData(every, every)

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The digits of the held-out writers, at half the resolution."""
        samples = super().load_held_out(options)
        return None if samples is None else _halved(samples)


def _halved(samples: Samples) -> Samples:
    assert isinstance(samples, TensorDataset)
    inputs, targets = samples.tensors
    pooled = nn.functional.avg_pool2d(inputs, 2).flatten(1) if len(inputs) else inputs
    return TensorDataset((pooled - _MEAN) / _DEVIATION, targets)


task = WritersMlp()
