"""The small networks of the federated literature that built-in tasks train. None has batch norm."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def leaf_cnn(classes: int, hidden: int = 2048, channels: int = 1, side: int = 28) -> nn.Module:
    """LEAF's convolutional network for FEMNIST, on images [samples, channels, side, side].

    Two convolutions of 5×5 with 32 and 64 channels, each followed by 2×2 max pooling, and a dense layer (Caldas et al.
    2018). With 62 classes it has 6,603,710 parameters; with `hidden=512` and ten classes it is the one that McMahan
    et al. 2017 train on MNIST, with 1,663,370.

    Args:
        classes: Outputs.
        hidden: Width of the dense layer.
        channels: Of the images.
        side: Of the images, at least 4.
    """
    left = side // 2 // 2
    return channels_last(
        nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * left * left, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
    )


def cifar_cnn(classes: int, channels: int = 3, side: int = 32) -> nn.Module:
    """A small convolutional network for CIFAR, on images [samples, channels, side, side].

    The one of Li et al. 2022, Federated Learning on Non-IID Data Silos. Two convolutions of 5×5 with 6
    and 16 channels, each followed by 2×2 max pooling, and dense layers of 120 and 84: 62,006 parameters with ten
    classes.

    Args:
        classes: Outputs.
        channels: Of the images.
        side: Of the images, at least 16.
    """
    left = ((side - 4) // 2 - 4) // 2
    return channels_last(
        nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * left * left, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )
    )


def fedavg_cnn(classes: int, channels: int = 3, side: int = 32) -> nn.Module:
    """The network that McMahan et al. 2017 train on CIFAR-10, on images [samples, channels, side, side].

    TensorFlow's tutorial of the time: two convolutions of 5×5 with 64 channels, each with 3×3 max pooling of stride 2
    and local response normalisation, dense layers of 384 and 192, and a linear one. The paper's million parameters
    (1,068,298) are those on crops of 24×24; on whole images of 32×32 there are 1,756,426.

    Args:
        classes: Outputs.
        channels: Of the images.
        side: Of the images.
    """
    left = -(-side // 4)
    # TensorFlow's lrn(depth_radius=4, bias=1, alpha=0.001 / 9, beta=0.75); torch divides alpha by the size itself.
    normalised = (9, 0.001, 0.75, 1.0)
    return channels_last(
        nn.Sequential(
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.LocalResponseNorm(*normalised),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(),
            nn.LocalResponseNorm(*normalised),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Flatten(),
            nn.Linear(64 * left * left, 384),
            nn.ReLU(),
            nn.Linear(384, 192),
            nn.ReLU(),
            nn.Linear(192, classes),
        )
    )


def small_cnn(classes: int, hidden: int = 64, channels: int = 1, side: int = 28) -> nn.Module:
    """A network that a slow device trains in milliseconds, on images [samples, channels, side, side].

    Two convolutions of 3×3 with 16 and 32 channels, each followed by 2×2 max pooling, and a dense layer: 56,714
    parameters on grey images of 28×28 with ten classes.

    Args:
        classes: Outputs.
        hidden: Width of the dense layer.
        channels: Of the images.
        side: Of the images, at least 10.
    """
    left = ((side - 2) // 2 - 2) // 2
    return channels_last(
        nn.Sequential(
            nn.Conv2d(channels, 16, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * left * left, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
    )


def perceptron(features: int, hidden: Sequence[int], classes: int) -> nn.Module:
    """Dense layers with ReLU between them, on [samples, features].

    Args:
        features: Inputs.
        hidden: Width of each hidden layer; none for logistic regression.
        classes: Outputs.
    """
    widths = [features, *hidden]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def channels_last(model: nn.Module) -> nn.Module:
    """The faster layout, on a CPU as well."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stubs do not know it
    return model
