"""FEMNIST in LEAF's format: characters of real people, one writer a client."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.image_models import ImageKind, image_model, model_defaults
from fedstep.client.leaf import LeafIndex, default_cache, open_leaf
from fedstep.client.partitions import Indices
from fedstep.client.task_options import whole_number
from fedstep.client.tasks.pooled import Pool, PooledTask, check_labels, data_path
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Samples

_SIDE = 28
_PIXELS = _SIDE * _SIDE
_A_LITTLE_OVER_1 = 1.01  # what rounding makes of a 1


class Femnist(PooledTask):
    """Which character is it? LEAF's network on images [samples, 1, 28, 28] float32, 1 for white paper.

    What is under `train` is the clients', writer by writer; what is under `test` is held out for the coordinator. A
    folder without a `train` is all the clients'. With as many clients as writers each client is one of them.

    Options beside those of every `PooledTask`:
        data: The folder that LEAF's preprocess script wrote: of JSON files, gzipped or not, or of `train` and `test`.
        writers: How many writers are trained on; all unless given.
        cache: Where what was read is kept; `~/.cache/fedstep` unless given.

    Attributes:
        classes: 62: digits, upper case, lower case.
    """

    name = "femnist"
    defaults = {"lr": 0.06, "batch_size": 20, **model_defaults("leaf_cnn", 2048)}  # noqa: RUF012  # the contract's own form
    partitioner = "natural"
    group_noun = "writers"
    more_options = ("writers", "cache")
    classes: ClassVar[int] = 62

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """LEAF's network unless another is named, see `fedstep.client.image_models`."""
        return image_model(ImageKind(1, _SIDE, self.classes), {**self.defaults, **hyperparameters})

    def open_pool(self, options: Mapping[str, str]) -> Pool:
        """The writers that are trained on.

        Raises:
            InvalidInputError: The folder or an option cannot be used.
        """
        folder = _folder(options, self.name)
        train = folder / "train"
        index = self._index(train if train.is_dir() else folder, options)
        chosen = self._chosen(index, options)
        return Pool(index.labels[chosen], lambda some: _tensors(index, chosen[some]), index.owners[chosen], index.users)

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """What is under `test`; None where there is no such folder or the coordinator was not given the data."""
        if "data" not in options:
            return None
        test = _folder(options, self.name) / "test"
        if not test.is_dir():
            return None
        index = self._index(test, options)
        return TensorDataset(*_tensors(index, np.arange(len(index.labels))))

    def _index(self, folder: Path, options: Mapping[str, str]) -> LeafIndex:
        cache = options.get("cache")
        index = open_leaf(folder, _PIXELS, Path(cache) if cache else default_cache())
        worst = int(index.labels.argmax())
        where = f"The writer {index.users[index.owners[worst]]} in {folder}"
        check_labels(index.labels, self.classes, where, "take the task femnist for 62 classes, femnist-digits for 10.")
        return index

    def _chosen(self, index: LeafIndex, options: Mapping[str, str]) -> Indices:
        """The samples of the writers that are trained on."""
        there = len(index.users)
        writers = whole_number(options, "writers", there, low=1)
        if writers > there:
            raise InvalidInputError(f"writers={writers} is more than the {there} in {index.folder}: give fewer.")
        if writers == there:
            return np.arange(len(index.labels))
        seed = whole_number(options, "partition_seed", 0, low=0)
        some = np.random.default_rng(seed).permutation(there)[:writers]
        return np.flatnonzero(np.isin(index.owners, some))


class FemnistDigits(Femnist):
    """The same with the ten digits alone."""

    name = "femnist-digits"
    classes = 10


def _folder(options: Mapping[str, str], task: str) -> Path:
    return Path(data_path(options, task, "the folder that LEAF's preprocess script wrote"))


def _tensors(index: LeafIndex, samples: Indices) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels from 0 to 1, as LEAF's script writes them; those of folders that others made from 0 to 255 are scaled."""
    images = torch.from_numpy(index.features(samples)).reshape(-1, 1, _SIDE, _SIDE)
    darkest, brightest = index.span  # everybody's: whoever reads a share scales it alike
    written_to_1 = brightest < _A_LITTLE_OVER_1
    if darkest < 0 or brightest > 255 or (not written_to_1 and brightest < 2):
        raise InvalidInputError(
            f"The images in {index.folder} have pixels from {darkest:g} to {brightest:g}: give them from 0 to 1, as "
            "LEAF's preprocess script does, or from 0 to 255."
        )
    if not written_to_1:
        images = images / 255
    return images, torch.from_numpy(index.labels[samples])


femnist = Femnist()
femnist_digits = FemnistDigits()
