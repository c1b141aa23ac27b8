"""Files in LEAF's format."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_leaf(path: Path, users: Mapping[str, int], classes: int = 10, features: int = 784, first: int = 0) -> None:
    """Writes one file of users with so many samples; the first number of a sample is its user's in 64ths."""
    data = {}
    for number, (user, samples) in enumerate(users.items(), start=first):
        rng = np.random.default_rng(number)
        x = rng.integers(0, 256, (samples, features)) / 255
        x[:, 0] = number / 64
        data[user] = {"x": x.tolist(), "y": rng.integers(0, classes, samples).tolist()}
    write_json(path, {"users": list(users), "num_samples": list(users.values()), "user_data": data})


def write_json(path: Path, content: object) -> None:
    """Writes JSON, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text, compresslevel=1) if path.suffix == ".gz" else text)
