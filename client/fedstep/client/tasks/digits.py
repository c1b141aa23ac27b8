"""Handwritten digits that scikit-learn brings along: 1,797 images of 8×8, nothing to download."""

import gzip
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.partitions import Indices, dirichlet_partition
from fedstep.client.task_options import check_known
from fedstep.client.tasks.shares import client_data, named_share, validation_share
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Samples, Task

_SEED = 20240607
_HELD_OUT = 0.2
_BRIGHTEST = 16.0


class Digits(Task):
    """Which digit is it? A small network on images [samples, 64] float32 in [0, 1].

    A fifth of the images is held out for the coordinator. The rest is split among clients started with a partition,
    without overlap and with nothing left over; a client without one draws about an eighth from its name, which may
    overlap with others'. Every client sees its own mix of digits.

    Options:
        validation: The part of a client's digits kept for validation, 0.15 unless given; with 0 it measures on all.

    Attributes:
        more_options: Names of options that a task made of this one has beside these.
    """

    more_options: ClassVar[tuple[str, ...]] = ()
    name = "digits"
    defaults = {"lr": 0.2, "batch_size": 16}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """A perceptron with one hidden layer: 4,810 parameters."""
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def load_data(self, client: ClientInfo) -> ClientData:
        """The client's share.

        Raises:
            InvalidInputError: There is no such option.
        """
        # data: what the environment has for other tasks
        check_known(client.options, self.name, ("data", "validation", *self.more_options))
        images, labels = _read()
        _, pool = _split(len(labels))
        if client.partition is None:
            share = named_share(labels[pool], client.name, _SEED)
        else:
            index, count = client.partition
            share = dirichlet_partition(labels[pool], count, _SEED)[index]
        chosen = pool[share]
        inputs, targets = torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])
        return client_data(inputs, targets, _SEED, validation_share(client.options))

    def load_held_out(self, options: Mapping[str, str]) -> Samples:
        """The fifth that no client sees."""
        images, labels = _read()
        held_out, _ = _split(len(labels))
        return TensorDataset(torch.from_numpy(images[held_out]), torch.from_numpy(labels[held_out]))


def _read() -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], Indices]:
    """Images [1797, 64] float32 and labels [1797] int64.

    Read from scikit-learn's own file: importing `sklearn.datasets` takes over a second, and this takes none.
    """
    spec = importlib.util.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / "datasets" / "data" / "digits.csv.gz" if folders else None
    if path is None:
        raise InvalidInputError('The task digits needs scikit-learn: install it with `pip install "fedstep[client]"`.')
    if path.is_file():
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
        return table[:, :-1] / _BRIGHTEST, table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # late: slow, and only where the file has moved

    images, labels = load_digits(return_X_y=True)
    return (images / _BRIGHTEST).astype(np.float32), labels.astype(np.int64)


def _split(count: int) -> tuple[Indices, Indices]:
    """Held-out and clients' positions, the same everywhere."""
    order = np.random.default_rng(_SEED).permutation(count)
    held_out = round(_HELD_OUT * count)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


task = Digits()
