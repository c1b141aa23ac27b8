"""Real people's digits for more clients than there are people: each client has a part of one writer's.

A task, for `writers_large.toml`. Data and options are those of the built-in task mnist-writers, at half the resolution.
"""

from collections.abc import Mapping

from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.tasks.mnist_writers import MnistWriters
from fedstep.common.task import ClientData, ClientInfo, Samples

_WRITERS = 300


class Writers(MnistWriters):
    """Which digit is it? Client i of n has every k-th digit of writer i modulo 300, k = n / 300 rounded up."""

    name = "writers"
    defaults = {"lr": 0.05, "batch_size": 16}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters):
        """A perceptron on images [samples, 196]: 19,882 parameters."""
        return nn.Sequential(nn.Linear(196, 96), nn.ReLU(), nn.Linear(96, 10))

    def load_data(self, client: ClientInfo) -> ClientData:
        """A part of a writer's digits."""
        index, count = client.partition or (0, 1)
        writers = min(count, int(client.options.get("writers", _WRITERS)))
        whole = super().load_data(ClientInfo(client.name, (index % writers, writers), client.options))
        part = slice(index // writers, None, -(-count // writers))
        return ClientData(_halved(whole.train, part), _halved(whole.validation, part))

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The digits of the writers that nobody trains on."""
        samples = super().load_held_out(options)
        return None if samples is None else _halved(samples)


def _halved(samples, part=slice(None)) -> TensorDataset:
    """Some of the samples; each pixel is the mean of 2 × 2, and about 0 in the mean."""
    inputs, targets = (tensor[part] for tensor in samples.tensors)
    return TensorDataset((nn.functional.avg_pool2d(inputs, 2).flatten(1) - 0.13) / 0.31, targets)


task = Writers()
