"""CIFAR-10 and -100, MNIST, Fashion-MNIST and EMNIST, split among the clients."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.image_models import ImageKind, image_model, model_defaults
from fedstep.client.image_sets import Images, ImageSet
from fedstep.client.partitions import Indices
from fedstep.client.task_options import truth
from fedstep.client.tasks.pooled import Pool, PooledTask, check_labels, data_path
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Samples

_TRAINING = {"lr": 0.05, "batch_size": 20}
_MCMAHAN = 512
"""Width of the dense layer of the network for grey images, that of McMahan et al. 2017."""


class ImageTask(PooledTask):
    """What is in the picture? The training set is split among the clients, the test set is held out.

    Options beside those of every `PooledTask`, for the coordinator too:
        data: torchvision's root: the folder that has a folder `cifar-10-batches-py`, `MNIST` or the like.
        download: `true` fetches what is not there.
        verify: `false` says that the files are one's own: they are not held against the originals' checksums.

    Attributes:
        images: The set.
        classes: How many it has.
        side: Of its pictures, in pixels.
        mean: Of the pixels from 0 to 1, for each channel: subtracted.
        deviation: The same, divided by.
    """

    defaults = {**_TRAINING, **model_defaults("leaf_cnn", _MCMAHAN)}  # noqa: RUF012  # the contract's own form
    more_options = ("download", "verify")
    images: ClassVar[ImageSet]
    classes: ClassVar[int] = 10
    side: ClassVar[int] = 28
    mean: ClassVar[tuple[float, ...]] = (0.5,)
    deviation: ClassVar[tuple[float, ...]] = (0.5,)

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """Two convolutions and dense layers unless another is named, see `fedstep.client.image_models`."""
        return image_model(ImageKind(len(self.mean), self.side, self.classes), {**self.defaults, **hyperparameters})

    def open_pool(self, options: Mapping[str, str]) -> Pool:
        """The training set.

        Raises:
            InvalidInputError: It cannot be read, or it is not the original.
        """
        images, labels = self._read(options, train=True)
        return Pool(labels, lambda some: self._tensors(images[some], labels[some]))

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The test set; None where the coordinator was not given the data."""
        return TensorDataset(*self._tensors(*self._read(options, train=False))) if "data" in options else None

    def _read(self, options: Mapping[str, str], train: bool) -> tuple[Images, Indices]:
        root = Path(data_path(options, self.name, "torchvision's folder"))
        download, verify = truth(options, "download", False), truth(options, "verify", True)
        images, labels = self.images.read(root, train, download, verify)
        where, fix = f"{self.images.title} in {root}", "mend the labels, or take the task that has these classes."
        check_labels(labels, self.classes, where, fix)
        return images, labels

    def _tensors(self, images: Images, labels: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs [samples, channels, height, width] float32, scaled, and targets."""
        shape = (1, -1, 1, 1)
        mean, deviation = (torch.tensor(of).reshape(shape) for of in (self.mean, self.deviation))
        inputs = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(torch.float32) / 255.0
        return (inputs - mean) / deviation, torch.from_numpy(labels)


class Cifar10(ImageTask):
    """CIFAR-10: 50,000 images of 32×32 in ten classes."""

    name = "cifar10"
    defaults = {**_TRAINING, **model_defaults("cifar_cnn", _MCMAHAN)}  # noqa: RUF012  # the contract's own form
    side = 32
    images = ImageSet("CIFAR10", "CIFAR-10")
    mean = (0.4914, 0.4822, 0.4465)
    deviation = (0.2470, 0.2435, 0.2616)


class Cifar100(Cifar10):
    """CIFAR-100: the same in a hundred classes."""

    name = "cifar100"
    images = ImageSet("CIFAR100", "CIFAR-100")
    classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    deviation = (0.2673, 0.2564, 0.2762)


class Mnist(ImageTask):
    """MNIST: 60,000 handwritten digits of 28×28."""

    name = "mnist"
    images = ImageSet("MNIST", "MNIST")
    mean = (0.1307,)
    deviation = (0.3081,)


class FashionMnist(ImageTask):
    """Fashion-MNIST: 60,000 pictures of clothes, laid out as MNIST."""

    name = "fashion-mnist"
    images = ImageSet("FashionMNIST", "Fashion-MNIST")
    mean = (0.2860,)
    deviation = (0.3530,)


class Emnist(ImageTask):
    """EMNIST's split `balanced`: 112,800 characters in 47 classes, lower case merged where it looks like upper case."""

    name = "emnist"
    images = ImageSet("EMNIST", "EMNIST", "balanced")
    classes = 47
    mean = (0.1736,)
    deviation = (0.3317,)


class EmnistByClass(Emnist):
    """EMNIST's split `byclass`: 697,932 characters in 62 classes, as FEMNIST but without its writers."""

    name = "emnist-byclass"
    images = ImageSet("EMNIST", "EMNIST", "byclass")
    classes = 62


class EmnistLetters(Emnist):
    """EMNIST's split `letters`: 124,800 letters in 26 classes."""

    name = "emnist-letters"
    images = ImageSet("EMNIST", "EMNIST", "letters", first_label=1)
    classes = 26


class EmnistDigits(Emnist):
    """EMNIST's split `digits`: 240,000 digits."""

    name = "emnist-digits"
    images = ImageSet("EMNIST", "EMNIST", "digits")
    classes = 10


cifar10 = Cifar10()
cifar100 = Cifar100()
mnist = Mnist()
fashion_mnist = FashionMnist()
emnist = Emnist()
emnist_byclass = EmnistByClass()
emnist_letters = EmnistLetters()
emnist_digits = EmnistDigits()
