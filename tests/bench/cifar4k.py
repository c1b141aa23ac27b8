"""The first 4,000 images of CIFAR-10 as a federation: 3,000 dealt unevenly to the clients, 1,000 held out.

A task, for `fedstep compare --task tests/bench/cifar4k.py --clients 100`. The shares are drawn from a Dirichlet(0.5)
distribution (Hsu et al. 2019), so a client sees few of the ten classes, and about thirty images.
"""

import functools
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.networks import channels_last
from fedstep.client.partitions import Indices, dirichlet_partition
from fedstep.client.safe_pickle import load_arrays
from fedstep.client.tasks.shares import client_data, validation_share
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Samples, Task

_SEED = 20240608
_CONCENTRATION = 0.5
_VALIDATION = 0.25
"""More than elsewhere: of thirty images fewer would say nothing."""

_MEAN, _DEVIATION = 0.47, 0.25
_LARGEST_MEMBER = 1 << 27


class Cifar4k(Task):
    """What is in the picture? A small convolutional network on images [samples, 3, 32, 32] float32.

    Options:
        data: Path to a tar.gz of `cifar-10-batches-py`.
        validation: The part of a client's images kept for validation, 0.25 unless given; with 0 it measures on all.
    """

    name = "cifar4k"
    defaults = {"lr": 0.05, "batch_size": 16, "local_epochs": 2, "server_momentum": 0.0}  # noqa: RUF012  # the contract's own form

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """Three convolutions and a dense layer: 31,082 parameters, no batch norm.

        Channels last, which is the faster layout on a CPU as well.
        """
        return channels_last(
            nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(32, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32 * 4 * 4, 32),
                nn.ReLU(),
                nn.Linear(32, 10),
            )
        )

    def load_data(self, client: ClientInfo) -> ClientData:
        """The images of one share, some of them for validation.

        Raises:
            InvalidInputError: The file cannot be used, or the client has no share.
        """
        if client.partition is None:
            raise InvalidInputError("The task cifar4k deals shares: give each client one, such as --partition 1/100.")
        path = _path(client.options)
        inputs, targets = _read(path, "data_batch")
        index, count = client.partition
        mine = torch.from_numpy(_shares(path, count)[index])
        return client_data(inputs[mine], targets[mine], _SEED, validation_share(client.options, _VALIDATION))

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The test batch; None where the coordinator was not given the data."""
        return TensorDataset(*_read(_path(options), "test_batch")) if "data" in options else None


def _path(options: Mapping[str, str]) -> Path:
    if "data" not in options:
        raise InvalidInputError("The task cifar4k needs its data: give the path to a tar.gz with --option data=PATH.")
    return Path(options["data"])


@functools.lru_cache(maxsize=1)
def _shares(path: Path, count: int) -> list[Indices]:
    """The images of every share; a simulation asks for one after the other."""
    _, targets = _read(path, "data_batch")
    return dirichlet_partition(targets.numpy(), count, _SEED, _CONCENTRATION)


@functools.lru_cache(maxsize=2)
def _read(path: Path, batch: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [samples, 3, 32, 32] float32 and labels [samples] int64 of the batches of that name, in their order."""
    try:
        with tarfile.open(path) as archive:
            found = [_batch(archive, member) for member in _members(archive, batch)]
        images = np.concatenate([images for images, _ in found])
        labels = np.concatenate([labels for _, labels in found])
    except (OSError, ValueError, KeyError, tarfile.TarError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise InvalidInputError(
            f"{path} cannot be read ({reason}): give a tar.gz of cifar-10-batches-py with --option data=PATH."
        ) from error
    inputs = torch.from_numpy(images.reshape(-1, 3, 32, 32)).to(torch.float32) / 255.0
    return (inputs - _MEAN) / _DEVIATION, torch.from_numpy(labels)


def _members(archive: tarfile.TarFile, batch: str) -> list[tarfile.TarInfo]:
    members = [m for m in archive.getmembers() if m.isfile() and Path(m.name).name.startswith(batch)]
    if not members:
        raise ValueError(f"it has no {batch}")
    if any(member.size > _LARGEST_MEMBER for member in members):
        raise ValueError("it holds too large a file")
    return sorted(members, key=lambda member: member.name)


def _batch(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[np.ndarray, np.ndarray]:
    file = archive.extractfile(member)
    assert file is not None
    content = load_arrays(io.BytesIO(file.read()))
    images, labels = np.asarray(content["data"]), np.asarray(content["labels"], dtype=np.int64)
    if images.shape != (len(labels), 3072) or images.dtype != np.uint8:
        raise ValueError(f"{member.name} holds {images.dtype} {list(images.shape)}, not uint8 [N, 3072]")
    return images, labels


task = Cifar4k()
