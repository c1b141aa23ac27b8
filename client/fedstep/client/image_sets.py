"""The image sets of the literature: torchvision knows where they are and what their checksums are.

torchvision checks less than it seems to: of MNIST and its kin it checks what it downloads and nothing that is there
already, and of CIFAR it takes no files but the originals. Here what is read is what was checked, and whoever has files
of their own in the same layout says so.
"""

import functools
import gzip
import io
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from fedstep.client.download import md5_of
from fedstep.client.partitions import Indices
from fedstep.client.safe_pickle import load_arrays
from fedstep.client.vision import load_torchvision
from fedstep.common.errors import InvalidInputError

Images = np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]
"""uint8 [samples, channels, height, width]."""

_OWN = "or, if these files are your own, say so with --option verify=false"


@dataclass(frozen=True)
class ImageSet:
    """One of torchvision's image sets.

    Attributes:
        kind: The name of its class in `torchvision.datasets`.
        title: What people call it.
        split: Of EMNIST: which of its splits; empty for the others.
        first_label: What its files call the first class.
    """

    kind: str
    title: str
    split: str = ""
    first_label: int = 0

    def read(self, root: Path, train: bool, download: bool, verify: bool) -> tuple[Images, Indices]:
        """Images and labels of the training or the test set.

        Args:
            root: torchvision's: the folder that has, or gets, a folder of this set's.
            train: The training set; else the test set.
            download: Fetch the originals, where they are not there.
            verify: Refuse files that are not the originals.

        Raises:
            InvalidInputError: The files are not there, not the originals, or cannot be read.
        """
        if download and not verify:
            raise InvalidInputError(
                "download=true fetches the originals, and verify=false says that the files are your own: give one of "
                "them."
            )
        kind = getattr(load_torchvision("datasets"), self.kind)
        folder = root / (kind.base_folder if self._is_cifar else f"{self.kind}/raw")
        if download:
            self._download(kind, root, folder)
        if not folder.is_dir():
            raise InvalidInputError(
                f"There is no {self.title} in {root}: put the folder {folder.relative_to(root)} there, or have it "
                "downloaded with --option download=true."
            )
        if verify:
            for path, md5 in self._originals(kind, folder):
                self._check(path, md5)
        if self._is_cifar:
            images, labels = self._cifar(folder, kind.train_list if train else kind.test_list)
        else:
            images, labels = self._grey(folder, train, verify)
        return images, labels - self.first_label

    @property
    def _is_cifar(self) -> bool:
        return self.kind.startswith("CIFAR")

    def _originals(self, kind: Any, folder: Path) -> list[tuple[Path, str]]:
        """The files that images and labels are read from, with their MD5."""
        if self._is_cifar:
            return [(folder / name, md5) for name, md5 in [*kind.train_list, *kind.test_list]]
        if self.split:
            return [(folder / _EMNIST_ARCHIVE, kind.md5)]
        return [(folder / name, md5) for name, md5 in kind.resources]

    def _download(self, kind: Any, root: Path, folder: Path) -> None:
        """Fetches the originals, unless they are there. Of clients that start together one does."""
        from filelock import FileLock  # late: of the extra `client`

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{self.kind}.lock"):
                if all(path.is_file() and _unchanged_md5(path) == md5 for path, md5 in self._originals(kind, folder)):
                    return
                self._fetch(kind, root, folder)
        except (URLError, OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
            raise InvalidInputError(
                f"{self.title} cannot be downloaded to {root} ({reason}): try again, or put its files there."
            ) from error

    def _fetch(self, kind: Any, root: Path, folder: Path) -> None:
        utils = load_torchvision("datasets.utils")
        if self._is_cifar:
            utils.download_and_extract_archive(kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5)
        elif self.split:
            utils.download_url(kind.url, str(folder), filename=_EMNIST_ARCHIVE, md5=kind.md5)
        else:
            for name, md5 in kind.resources:
                for mirror in kind.mirrors:
                    try:
                        utils.download_url(f"{mirror}{name}", str(folder), filename=name, md5=md5)
                        break
                    except (URLError, RuntimeError):
                        if mirror == kind.mirrors[-1]:
                            raise

    def _check(self, path: Path, md5: str) -> None:
        if not path.is_file():
            raise InvalidInputError(
                f"{self.title} cannot be checked, for there is no {path}: put the original there, have it downloaded "
                f"with --option download=true, {_OWN}."
            )
        found = _unchanged_md5(path)
        if found != md5:
            raise InvalidInputError(
                f"{path} is not the original of {self.title} (its MD5 is {found} and should be {md5}): get it again, "
                f"{_OWN}."
            )

    def _cifar(self, folder: Path, names: Sequence[Sequence[str]]) -> tuple[Images, Indices]:
        """Of the batches that are there: somebody's own may be fewer."""
        there = [folder / name for name, _ in names if (folder / name).is_file()]
        if not there:
            raise InvalidInputError(f"{folder} has no {names[0][0]}: put it there, in CIFAR's own Python layout.")
        batches = [_batch(path) for path in there]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        return images.reshape(-1, 3, 32, 32), labels

    def _grey(self, folder: Path, train: bool, verify: bool) -> tuple[Images, Indices]:
        """Of MNIST's layout. With `verify` from the archives that were checked, else from what is unpacked first."""
        part = f"emnist-{self.split}-{'train' if train else 'test'}" if self.split else "train" if train else "t10k"
        images, labels = (
            _idx(folder, f"{part}-{what}-ubyte", dimensions, verify, in_zip=bool(self.split))
            for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
        )
        if len(images) != len(labels):
            raise InvalidInputError(
                f"{folder} has {len(images)} images and {len(labels)} labels in {part}: get both files again."
            )
        upright = images.swapaxes(1, 2) if self.split else images  # EMNIST's files have columns for rows
        return upright[:, None], labels.astype(np.int64)


_EMNIST_ARCHIVE = "gzip.zip"


def _unchanged_md5(path: Path) -> str:
    """A file's MD5, computed once for as long as the file stays the same."""
    state = path.stat()
    return _md5(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _md5(path: Path, size: int, changed_ns: int) -> str:
    return md5_of(path)


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [samples, 3072] and labels int64 [samples] of a file in CIFAR's Python layout."""
    try:
        content = load_arrays(io.BytesIO(path.read_bytes()))
        if not isinstance(content, dict):
            raise ValueError("it holds no dict")
        key = "labels" if "labels" in content else "fine_labels"
        missing = [name for name in ("data", key) if name not in content]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        images, labels = np.asarray(content["data"]), np.asarray(content[key], dtype=np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3072):
            raise ValueError(f"its data are {images.dtype} {list(images.shape)} for {len(labels)} labels")
    except (OSError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or ["nothing in it"])[0]
        raise InvalidInputError(
            f"{path} cannot be read ({reason}): it must be in CIFAR's own Python layout, data uint8 [N, 3072] and N "
            "labels."
        ) from error
    return images, labels


def _idx(folder: Path, name: str, dimensions: int, packed: bool, in_zip: bool) -> np.ndarray:
    """An array of MNIST's idx format, uint8 [samples, ...], from a plain file, a gzipped one or EMNIST's archive."""
    plain, gzipped = folder / name, folder / f"{name}.gz"
    path = folder / _EMNIST_ARCHIVE if packed and in_zip else gzipped if packed or not plain.is_file() else plain
    try:
        content = _member(path, f"gzip/{gzipped.name}") if path.suffix == ".zip" else path.read_bytes()
        content = content if path == plain else gzip.decompress(content)
        if content[:4] != bytes((0, 0, 8, dimensions)):
            raise ValueError(f"it does not begin as idx{dimensions} does")
        shape = [int(length) for length in np.frombuffer(content, ">u4", dimensions, offset=4)]
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInputError(
            f"{path} cannot be read ({reason}): it must be {name} in MNIST's idx format."
        ) from error


def _member(archive: Path, name: str) -> bytes:
    with zipfile.ZipFile(archive) as file:
        return file.read(name)
