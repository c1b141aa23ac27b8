"""The small networks of the federated literature that built-in tasks train. None has batch norm."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def leaf_cnn(classes: int, hidden: int = 2048) -> nn.Module:
    """LEAF's convolutional network for FEMNIST, on images [samples, 1, 28, 28].

    Two convolutions of 5×5 with 32 and 64 channels, each followed by 2×2 max pooling, and a dense layer (Caldas et al.
    2018). With 62 classes it has 6,603,710 parameters; with `hidden=512` and ten classes it is the one that McMahan
    et al. 2017 train on MNIST, with 1,663,370.

    Args:
        classes: Outputs.
        hidden: Width of the dense layer.
    """
    return channels_last(
        nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )
    )


def cifar_cnn(classes: int) -> nn.Module:
    """A small convolutional network for CIFAR, on images [samples, 3, 32, 32].

    The one of Li et al. 2022, Federated Learning on Non-IID Data Silos. Two convolutions of 5×5 with 6
    and 16 channels, each followed by 2×2 max pooling, and dense layers of 120 and 84: 62,006 parameters with ten
    classes.

    Args:
        classes: Outputs.
    """
    return channels_last(
        nn.Sequential(
            nn.Conv2d(3, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
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
