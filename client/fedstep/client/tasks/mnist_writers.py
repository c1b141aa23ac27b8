"""MNIST by writer: digits of real people, one person a client."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.image_models import ImageKind, image_model, model_defaults
from fedstep.client.partitions import Indices
from fedstep.client.task_options import check_known, whole_number
from fedstep.client.tasks.shares import client_data, name_generator, validation_share
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import ClientData, ClientInfo, Samples, Task

_SEED = 20240608
_WRITERS = 300
_HELD_OUT_WRITERS = 60
_OPTIONS = ("data", "held_out_writers", "validation", "writers")


class MnistWriters(Task):
    """Which digit is it? A small convolutional network on images [samples, 1, 28, 28] float32 in [0, 1].

    Some writers are held out for the coordinator and never trained on. Clients started with a partition share the
    training writers out in turn; a client without one is a single writer, drawn from its name.

    Options, the same for every client and the coordinator:
        data: Path to an npz of `images` u8 [N, 28, 28], `labels` u8 [N] and `writer_ids` i32 [N].
        writers: How many writers are trained on, 300 unless given; fewer where there are fewer.
        held_out_writers: How many are held out, 60 unless given.
        validation: The part of a client's digits kept for validation, 0.15 unless given; with 0 it measures on all.

    Attributes:
        more_options: Names of options that a task made of this one has beside these.
    """

    more_options: ClassVar[tuple[str, ...]] = ()
    name = "mnist-writers"
    defaults = {"lr": 0.1, "batch_size": 16, **model_defaults("small_cnn", 64)}  # noqa: RUF012  # the contract's own form

    def __init__(self) -> None:
        """Nothing is read before it is asked for."""
        self._read: dict[str, _Archive] | None = None  # while many clients are loaded

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """Two convolutions and two dense layers, 56,714 parameters, unless another network is named.

        See `fedstep.client.image_models`.
        """
        return image_model(ImageKind(1, 28, 10), {**self.defaults, **hyperparameters})

    def load_data(self, client: ClientInfo) -> ClientData:
        """The digits of the client's writers.

        Raises:
            InvalidInputError: The file or an option cannot be used, or there are more shares than writers.
        """
        check_known(client.options, self.name, (*_OPTIONS, *self.more_options))
        archive = self._archive(client.options)
        _, training = archive.writers(client.options)
        if client.partition is None:
            mine = training[[name_generator(client.name, _SEED).integers(len(training))]]
        else:
            index, count = client.partition
            if count > len(training):
                raise InvalidInputError(
                    f"{len(training)} writers cannot be split into {count} shares: give fewer shares or more writers."
                )
            mine = training[index::count]
        inputs, targets = archive.samples_of(mine)
        return client_data(inputs, targets, _SEED, validation_share(client.options))

    @contextmanager
    def loading_many(self) -> Iterator[None]:
        """Reads the file once for all clients that are loaded in the block."""
        self._read = {}
        try:
            yield
        finally:
            self._read = None

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The digits of the held-out writers; None where the coordinator was not given the data."""
        if "data" not in options:
            return None
        archive = self._archive(options)
        held_out, _ = archive.writers(options)
        return TensorDataset(*archive.samples_of(held_out)) if len(held_out) else None

    def _archive(self, options: Mapping[str, str]) -> "_Archive":
        if self._read is None:
            return _Archive.read(options)
        path = options.get("data", "")
        if path not in self._read:
            self._read[path] = _Archive.read(options)
        return self._read[path]


@dataclass(frozen=True)
class _Archive:
    """The npz: images u8 [N, 28, 28], labels [N], writer_ids [N]."""

    images: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
    labels: Indices
    writer_ids: Indices

    @classmethod
    def read(cls, options: Mapping[str, str]) -> "_Archive":
        if "data" not in options:
            raise InvalidInputError("The task mnist-writers needs its data: give the path to an npz with --data PATH.")
        path = Path(options["data"])
        try:
            file = np.load(path, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("a single array")
            with file:
                missing = {"images", "labels", "writer_ids"} - set(file.files)
                if missing:
                    raise InvalidInputError(
                        f"{path} has no array {sorted(missing)[0]}: it must hold images, labels and writer_ids."
                    )
                images, labels, writer_ids = file["images"], file["labels"], file["writer_ids"]
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not an npz of plain arrays"
            raise InvalidInputError(
                f"{path} cannot be read ({reason}): give the path to an npz with --data PATH."
            ) from error
        count = len(labels)
        if images.shape != (count, 28, 28) or images.dtype != np.uint8 or writer_ids.shape != (count,):
            raise InvalidInputError(
                f"{path} has images {images.dtype} {list(images.shape)}, labels {list(labels.shape)} and writer_ids "
                f"{list(writer_ids.shape)}: they must be uint8 [N, 28, 28], [N] and [N]."
            )
        if count and not (labels.min() >= 0 and labels.max() <= 9):
            raise InvalidInputError(f"{path} has labels outside 0 to 9: it must hold digits.")
        return cls(images, labels.astype(np.int64), writer_ids.astype(np.int64))

    def writers(self, options: Mapping[str, str]) -> tuple[Indices, Indices]:
        """Held-out and training writers, split by a fixed seed; no writer is both."""
        order = np.random.default_rng(_SEED).permutation(np.unique(self.writer_ids))
        held_out = whole_number(options, "held_out_writers", _HELD_OUT_WRITERS, low=0)
        writers = whole_number(options, "writers", _WRITERS, low=1)
        if held_out >= len(order):
            raise InvalidInputError(
                f"held_out_writers = {held_out} leaves none of the {len(order)} writers to train on: give a lower one."
            )
        return order[:held_out], order[held_out : held_out + writers]

    def samples_of(self, writers: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs [samples, 1, 28, 28] float32 in [0, 1] and targets [samples] of some writers."""
        chosen = np.isin(self.writer_ids, writers)
        inputs = torch.from_numpy(self.images[chosen]).unsqueeze(1).to(torch.float32) / 255.0
        return inputs, torch.from_numpy(self.labels[chosen])


task = MnistWriters()
