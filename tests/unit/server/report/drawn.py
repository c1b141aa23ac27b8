"""Spaces to draw pictures of, and what is to be seen in a picture."""

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

PARAMETERS: dict[str, dict[str, Any]] = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "batch_size": {"low": 8, "high": 64, "log": True},
    "optimizer": {"choices": ["sgd", "adam", "adamw"]},
    "momentum": {"low": 0.0, "high": 0.95, "when": {"optimizer": "sgd"}},
    "local_epochs": {"low": 1, "high": 5},
    "fixed_at_one": {"low": 1.0, "high": 1.0},
    "flip": {"choices": [True, False]},
    "augmentation": {"choices": ["none", "shift-and-rotate $x^", "elastic deformation", "cutout", "mixup"]},
    "wide": {"type": "int", "low": 1, "high": 10**6, "log": True},
    "a_name_that_is_far_too_long_for_a_small_picture": {"low": 0.0, "high": 0.5},
}


def read(path: Path) -> NDArray[np.float64]:
    """A picture as [height, width, 4] in 0 … 1."""
    return np.asarray(matplotlib.image.imread(path), dtype=np.float64)


def inked(picture: NDArray[np.float64], color: str) -> int:
    """How many pixels have that colour."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum())
