"""Image sets in the layouts of their originals, small."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np


def write_batch(path: Path, samples: int, classes: int = 10, key: str = "labels", seed: int = 0) -> None:
    """A batch in CIFAR's Python layout."""
    rng = np.random.default_rng(seed)
    content = {"data": rng.integers(0, 256, (samples, 3072), np.uint8), key: (np.arange(samples) % classes).tolist()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def idx(array: np.ndarray) -> bytes:
    """An array in the idx format."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def images(samples: int) -> np.ndarray:
    """[samples, 28, 28] that are white in the upper right corner."""
    array = np.random.default_rng(samples).integers(0, 100, (samples, 28, 28))
    array[:, 0, 27] = 255
    return array


def write_mnist(folder: Path, train: int, test: int, packed: bool) -> None:
    """The four files, gzipped or not."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, samples in (("train", train), ("t10k", test)):
        for what, array in (("images-idx3", images(samples)), ("labels-idx1", np.arange(samples) % 10)):
            name = f"{part}-{what}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1, mtime=0))
            else:
                (folder / name).write_bytes(idx(array))


def emnist_archive(split: str, samples: int, classes: int, first: int) -> bytes:
    """EMNIST's one archive, with one split; images lie on their side, as they do in the original."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part in ("train", "test"):
            on_side = images(samples).swapaxes(1, 2)
            labels = np.arange(samples) % classes + first
            for what, array in (("images-idx3", on_side), ("labels-idx1", labels)):
                archive.writestr(f"gzip/emnist-{split}-{part}-{what}-ubyte.gz", gzip.compress(idx(array), 1))
    return buffer.getvalue()
