"""Data in LEAF's format, read one user at a time.

LEAF (Caldas et al. 2018, LEAF: A Benchmark for Federated Settings) writes JSON: `users`, `num_samples` and `user_data`,
which has `x` and `y` of each user. FEMNIST is gigabytes of it, text whose numbers have no fixed place, often gzipped.
So it is read through once, as a stream, and what it says is kept in a cache folder as plain arrays with an index of
the users. From then on whoever asks for a user's samples reads those and no others.
"""

import gzip
import hashlib
import json
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from fedstep.client.partitions import Indices
from fedstep.common.errors import InvalidInputError

Features = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_FORMAT = 2
_FEATURES, _LABELS, _INDEX = "features.f32", "labels.i64", "index.json"


@dataclass(frozen=True)
class LeafIndex:
    """Where each user's samples are.

    Attributes:
        folder: Of the JSON files.
        users: Their names, in the order of the files.
        owners: The number of the user whose each sample is, [samples].
        labels: [samples] int64.
        span: The least and the greatest number in anybody's features.
    """

    folder: Path
    users: tuple[str, ...]
    owners: Indices
    labels: Indices
    span: tuple[float, float]
    _features: Features

    def features(self, samples: Indices) -> Features:
        """Some samples' features, [samples, features] float32. Only these are read from the disk."""
        return np.array(self._features[samples])


def open_leaf(folder: Path, features: int, cache: Path) -> LeafIndex:
    """The samples of a folder of LEAF's JSON files, `*.json` or `*.json.gz`.

    The first one to ask builds the index, and others wait for it. It is built again when a file has changed.

    Args:
        folder: Where the files are.
        features: Numbers in a sample's `x`.
        cache: Where indexes are kept; made if it is not there.

    Raises:
        InvalidInputError: The folder holds none, a file is not LEAF's JSON, or the cache cannot be written.
    """
    from filelock import FileLock  # late: of the extra `client`, which a coordinator may do without

    files = _files(folder)
    place, version = _names(folder, files, features)
    kept = cache / f"{place}-{version}"
    try:
        if not kept.is_dir():  # else nothing is written: the cache may be read-only
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{place}.lock"):
                if not kept.is_dir():
                    _build(files, features, kept)
                    _remove_older(cache, place, kept)
        return _load(folder, kept, features)
    except (ValueError, KeyError, TypeError, OverflowError, FileNotFoundError) as error:
        raise InvalidInputError(
            f"The index of {folder} in {kept} is damaged: remove it, and it is made again."
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"The index of {folder} cannot be kept in {cache} ({error.strerror or error}): give a folder with room "
            "that can be written with --option cache=FOLDER."
        ) from error


def default_cache() -> Path:
    """Where indexes are kept unless somebody says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "fedstep"


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInputError(
            f"There is no folder {folder}: give the folder of LEAF's JSON files, or the one that holds its train and "
            "test, with --data FOLDER."
        )
    files = sorted(path for path in folder.iterdir() if path.name.endswith((".json", ".json.gz")) and path.is_file())
    if not files:
        raise InvalidInputError(
            f"{folder} has no .json or .json.gz: give the folder that LEAF's preprocess script wrote with --data "
            "FOLDER."
        )
    return files


def _names(folder: Path, files: Sequence[Path], features: int) -> tuple[str, str]:
    """A name for the folder, and one for what is in it now."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    version = hashlib.sha256(json.dumps([_FORMAT, features, states]).encode()).hexdigest()[:16]
    return f"leaf-{place}", version


def _build(files: Sequence[Path], features: int, kept: Path) -> None:
    """Writes the arrays and the index; whole under their name, or not at all."""
    half = Path(tempfile.mkdtemp(prefix=f"{kept.name}.part-", dir=kept.parent))
    try:
        users: dict[str, Path] = {}
        counts: list[int] = []
        least, greatest = math.inf, -math.inf
        with (half / _FEATURES).open("wb") as x_file, (half / _LABELS).open("wb") as y_file:
            for path in files:
                for user, x, y in _users(path, features):
                    if user in users:
                        raise InvalidInputError(
                            f"The user {user} is in {users[user]} and in {path}: keep one of the two, each user is one "
                            "client."
                        )
                    users[user] = path
                    counts.append(len(y))
                    x_file.write(x.tobytes())
                    y_file.write(y.tobytes())
                    least, greatest = min(least, float(x.min())), max(greatest, float(x.max()))
        index = {"users": list(users), "counts": counts, "span": [least, greatest] if counts else [0.0, 0.0]}
        (half / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        for name in (_FEATURES, _LABELS, _INDEX):  # on the disk before they have their name
            with (half / name).open("rb") as written:
                os.fsync(written.fileno())
        half.chmod(0o755)  # others on this machine may read it
        half.rename(kept)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _users(path: Path, features: int) -> Iterator[tuple[str, Features, Indices]]:
    """Name, features and labels of a file's users with samples, of which one at a time is in memory."""
    try:
        import ijson  # late: of the extra `client`
    except ModuleNotFoundError as error:
        raise InvalidInputError('LEAF\'s JSON is read with ijson: pip install "fedstep[client]".') from error

    found = False
    try:
        counts = zip(_first(path, "users"), _first(path, "num_samples"), strict=False)
        listed = {str(user): count for user, count in counts}
        with _open(path) as file:
            for user, content in ijson.kvitems(file, "user_data", use_float=True):
                found = True
                x, y = _arrays(path, user, content, features)
                _check_count(path, user, listed.pop(user, len(y)), len(y))
                if len(y):
                    yield user, x, y
        for user, count in listed.items() if found else ():
            _check_count(path, user, count, 0)
    except (ijson.JSONError, UnicodeDecodeError, EOFError, zlib.error, OSError) as error:
        raise InvalidInputError(
            f"{path} cannot be read ({_reason(error)}): make it again with LEAF's preprocess script."
        ) from error
    if not found:
        raise InvalidInputError(
            f'{path} has no users under the key "user_data": give JSON of LEAF\'s preprocess script, with users, '
            "num_samples and user_data."
        )


def _first(path: Path, key: str) -> list[object]:
    """The list under a key of a file, which LEAF writes before the data; [] where there is none."""
    import ijson

    with _open(path) as file:
        found: object = next(iter(ijson.items(file, key, use_float=True)), [])
    return found if isinstance(found, list) else []


def _check_count(path: Path, user: str, said: object, count: int) -> None:
    if said != count:
        raise InvalidInputError(
            f"{path} says under num_samples that the user {user} has {said} samples, and {count} are there: make it "
            "again with LEAF's preprocess script, or correct users and num_samples."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it ends too early"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return "not gzipped, or damaged"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    told = {"premature EOF": "it ends too early", "integer overflow": "it has a whole number of more than 64 bits"}
    return next((said for word, said in told.items() if word in str(error)), "it is no whole JSON, which has no NaN")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _arrays(path: Path, user: str, content: object, features: int) -> tuple[Features, Indices]:
    """Features [samples, features] and labels [samples] of a user, checked."""

    def fault(what: str) -> InvalidInputError:
        return InvalidInputError(
            f"The user {user} in {path} {what}: x must be lists of {features} numbers and y as many whole numbers "
            "from 0 on."
        )

    if not isinstance(content, dict):
        raise fault("is not an object with x and y")
    for key in ("x", "y"):
        if not isinstance(content.get(key), list):
            raise fault(f'has no list "{key}"')
    try:
        with np.errstate(over="ignore"):  # what is too large is told below
            x = np.array(content["x"], dtype=np.float32).reshape(len(content["x"]), -1 if content["x"] else features)
        y = np.array(content["y"])
    except (ValueError, TypeError):
        raise fault("has samples of different lengths, or what is no number") from None
    if x.shape != (len(y), features):
        raise fault(f"has x {list(x.shape)} and y {list(y.shape)}")
    if len(y) and (y.ndim != 1 or y.dtype.kind != "i" or y.min() < 0):
        raise fault("has labels that are no whole numbers from 0 on")
    if not np.isfinite(x).all():
        raise fault("has numbers that are not finite")
    return x, y.astype(np.int64)


def _load(folder: Path, kept: Path, features: int) -> LeafIndex:
    index = json.loads((kept / _INDEX).read_text(encoding="utf-8"))
    counts = np.array(index["counts"], dtype=np.int64)
    samples = int(counts.sum())
    if not samples:
        raise InvalidInputError(f"Nobody in {folder} has a sample: make it again with LEAF's preprocess script.")
    labels = np.fromfile(kept / _LABELS, dtype=np.int64)
    least, greatest = map(float, index["span"])
    if len(labels) != samples or len(index["users"]) != len(counts):
        raise ValueError("the files do not go together")
    return LeafIndex(
        folder,
        tuple(index["users"]),
        np.repeat(np.arange(len(counts)), counts),
        labels,
        (least, greatest),
        np.memmap(kept / _FEATURES, dtype=np.float32, mode="r", shape=(samples, features)),
    )


def _remove_older(cache: Path, place: str, kept: Path) -> None:
    """Removes what was kept of the same folder before its files changed, and what an interrupted build left."""
    for other in cache.glob(f"{place}-*"):
        if other != kept:
            shutil.rmtree(other, ignore_errors=True)
