"""Model files in a folder, each named by the SHA-256 of its content.

`ab/abcdef….bin` is a payload (see `fedstep.common.tensors`), `ab/abcdef….json` says which tensors it holds. A file
appears whole or not at all, and what a database names after `put` returned is on the disk.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from google.protobuf import json_format

from fedstep.common.errors import DataLossError, InvalidInputError, NotFoundError, StorageError, UnavailableError
from fedstep.common.tensors import Manifest, as_bytes, unpack
from fedstep.common.tensors import sha256 as digest_of
from fedstep.v1 import tensors_pb2

_PAYLOAD = ".bin"
_MANIFEST = ".json"
_PART = ".part"
_SPARES = 2
_LEAST_SPARE_BYTES = 1 << 20


class BlobStore:
    """Keeps payloads, each once. One coordinator owns the folder; any of its threads may call.

    A payload that is deleted leaves its file to the next one of its size, which is written over it: the pages are in
    memory and the blocks on the disk already, and new ones cost a round more than the writing does.

    Args:
        folder: Made when it is missing. What writers that were killed left in it is removed.
        owner: The database whose models these are; another one's coordinator would take them for left over.

    Raises:
        StorageError: The folder is another database's, or cannot be made or written to. Any call that writes raises
            it, such as on a full disk.
    """

    def __init__(self, folder: Path, owner: str = "") -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # Puts are counted, and holds remember the count at their start: what was put since must not be deleted.
        self._puts = 0
        self._recent: dict[bytes, int] = {}
        self._holds: list[int] = []
        self._there: set[bytes] = set()
        self._looked = False
        self._spares: list[Path] = []
        self._deleted = 0
        with self._told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._check_owner(owner)
            for part in folder.glob(f"*/*{_PART}"):
                part.unlink(missing_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass

    def _check_owner(self, owner: str) -> None:
        if not owner:
            return
        mark = self._folder / "OWNER"
        if not mark.exists():
            _write(mark, owner.encode())
        elif mark.read_text() != owner:
            raise StorageError(
                f"The models in {self._folder} are another database's: give this coordinator a --data-dir of its own, "
                "or remove that folder if its database is gone."
            )

    def path(self, sha256: bytes) -> Path:
        """Where the payload of that digest is or would be."""
        name = sha256.hex()
        return self._folder / name[:2] / f"{name}{_PAYLOAD}"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """What is put from here on is kept until the end of the block, whatever `retain` is told.

        For the time between a `put` and the commit that names it.
        """
        with self._lock:
            start = self._puts
            self._holds.append(start)
        try:
            yield
        finally:
            with self._lock:
                self._holds.remove(start)
                oldest = min(self._holds, default=self._puts)
                self._recent = {digest: number for digest, number in self._recent.items() if number > oldest}

    def held(self) -> set[bytes]:
        """The digests that holds keep at this moment."""
        with self._lock:
            return set(self._recent)

    def put(self, data: memoryview | bytes, sha256: bytes, manifest: Manifest | None = None) -> Path:
        """Writes a payload, unless it is there.

        Args:
            data: The payload.
            sha256: Its digest, which the caller has computed; it is not computed again.
            manifest: The tensors in it; without one `manifest` and `export_safetensors` will not find any.

        Returns:
            The payload's file.

        Raises:
            InvalidInputError: The manifest is of a payload of another length.
            UnavailableError: The payload is there with another manifest.
            DataLossError: The manifest there cannot be read.
        """
        size = memoryview(data).nbytes
        if manifest is not None and manifest.payload_bytes != size:
            raise InvalidInputError(f"A payload of {size} bytes with a manifest of {manifest.payload_bytes}.")
        path = self.path(sha256)
        with self.hold(), self._told(path):
            with self._lock:
                self._puts += 1
                self._recent[sha256] = self._puts
                self._there.add(sha256)
                there = path.exists() and path.stat().st_size == size
            if manifest is not None and there and path.with_suffix(_MANIFEST).exists():
                check_layout(sha256, self.manifest(sha256), manifest)
            elif manifest is not None:
                # Before the payload: a payload that was given a manifest is never there without it.
                _write(path.with_suffix(_MANIFEST), json_format.MessageToJson(manifest.to_proto()).encode())
            if not there:
                _write(path, data, self._spare(size))
        return path

    def get(self, sha256: bytes) -> torch.Tensor:
        """The payload of that digest, verified: uint8 [payload_bytes].

        Raises:
            NotFoundError: It is not there.
            DataLossError: The file is not what its name says.
        """
        path = self.path(sha256)
        with self._told(path), self._found(path), path.open("rb", buffering=0) as file:
            payload = torch.empty(os.fstat(file.fileno()).st_size, dtype=torch.uint8)
            view, read = as_bytes(payload), 0
            while read < len(view) and (count := file.readinto(view[read:])):
                read += count
        if read != len(view) or digest_of(payload) != sha256:
            raise DataLossError(
                f"The model file {path} is damaged, its content does not match its name: restore it from a copy."
            )
        return payload

    def manifest(self, sha256: bytes) -> Manifest:
        """The tensors in the payload of that digest.

        Raises:
            NotFoundError: None was put with it, or the payload itself is not there.
            DataLossError: The manifest cannot be read.
        """
        path = self.path(sha256).with_suffix(_MANIFEST)
        with self._told(path), self._found(path):
            text = path.read_bytes()
        try:
            return Manifest.from_proto(json_format.Parse(text, tensors_pb2.TensorManifest()))
        except (json_format.ParseError, UnicodeDecodeError, InvalidInputError) as error:
            raise DataLossError(f"The manifest {path} cannot be read ({error}): restore it from a copy.") from error

    def retain(self, keep: Set[bytes]) -> int:
        """Deletes every payload but these and those under a `hold`.

        The folder is looked through once, for what an earlier coordinator left in it; the rest this one has put.

        Returns:
            How many payloads it deleted.
        """
        with self._told(self._folder):
            if not self._looked:
                self._look_through()
            with self._lock:
                gone = self._there - keep
            return sum(self._delete(digest) for digest in gone)

    def _look_through(self) -> None:
        """Finds the payloads of earlier coordinators; manifests that a kill between two deletions left alone go."""
        found = {digest for path in self._folder.glob(f"*/*{_PAYLOAD}") if (digest := _digest_in(path))}
        for path in self._folder.glob(f"*/*{_MANIFEST}"):
            with self._lock:
                alone = not path.with_suffix(_PAYLOAD).exists()
                if alone and _digest_in(path) not in self._recent:
                    path.unlink(missing_ok=True)
        with self._lock:
            self._there |= found
            self._looked = True

    def remove(self, digests: Set[bytes]) -> None:
        """Deletes these payloads, those under a `hold` excepted."""
        with self._told(self._folder):
            for digest in digests:
                self._delete(digest)

    def _delete(self, digest: bytes) -> bool:
        path = self.path(digest)
        with self._lock:
            if digest in self._recent:
                return False
            if not path.exists():
                self._there.discard(digest)
                return False
            # The payload first: a manifest without one does no harm.
            if len(self._spares) < _SPARES and path.stat().st_size >= _LEAST_SPARE_BYTES:
                self._deleted += 1  # a name of its own: the same payload may come and go again
                self._spares.append(path.replace(path.with_suffix(f".{self._deleted}{_PART}")))
            else:
                path.unlink()
            path.with_suffix(_MANIFEST).unlink(missing_ok=True)
            self._there.discard(digest)
        return True

    def _spare(self, size: int) -> Path | None:
        """A file of that size to write over; those of other sizes are of models no longer trained."""
        with self._lock:
            while self._spares:
                spare = self._spares.pop()
                with suppress(FileNotFoundError):  # somebody tidied up by hand
                    if spare.stat().st_size == size:
                        return spare
                    spare.unlink()
        return None

    def export_safetensors(self, sha256: bytes, path: Path) -> None:
        """Writes a model as a safetensors file, which most frameworks read.

        Args:
            sha256: A payload that was put with its manifest.
            path: Replaced if it exists; its folder must.

        Raises:
            NotFoundError: The payload or its manifest is not there.
            DataLossError: One of them is damaged.
        """
        import safetensors  # only who exports needs it
        from safetensors.torch import save_file

        state = unpack(self.get(sha256), self.manifest(sha256))
        part = path.with_name(path.name + _PART)
        with self._told(path):
            try:
                part.touch()
                mode = part.stat().st_mode  # what a new file gets here; safetensors keeps what it writes to its owner
                save_file(state, part, metadata={"format": "pt", "sha256": sha256.hex()})
                part.chmod(mode)
                part.replace(path)
            except safetensors.SafetensorError as error:  # how it reports the system's errors
                raise StorageError(f"The file {path} cannot be written ({error}): give another path.") from error
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def _found(self, path: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(
                f"There is no {path.name} in {self._folder}: was it removed, or is this another coordinator's folder?"
            ) from error

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        """Turns what the system raises into a sentence."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{path} cannot be read or written ({error.strerror or error}): "
                "check its rights and the room on its disk, or give another folder."
            ) from error


def check_layout(sha256: bytes, there: Manifest, given: Manifest) -> None:
    """Models are named by their bytes alone: of two with the same bytes and different layouts only one may be there.

    Raises:
        UnavailableError: The layout given is not the one that is there.
    """
    if difference := there.difference(given):
        raise UnavailableError(
            f"Two models have the same bytes ({sha256.hex()[:16]}) and different layouts ({difference}), as when all "
            "their weights are 0: let the task draw its initial weights, or run one study after the other."
        )


def _digest_in(path: Path) -> bytes | None:
    """The digest that a file is named by; None of somebody else's."""
    try:
        return bytes.fromhex(path.stem)
    except ValueError:
        return None


def _write(path: Path, data: memoryview | bytes, spare: Path | None = None) -> None:
    """Makes the file, whole and on the disk, or raises OSError and leaves nothing.

    Args:
        path: The file.
        data: Its content.
        spare: A file of the same size that becomes it; a new one where there is none.
    """
    folder = path.parent
    if not folder.exists():
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)
    part = spare or folder / f"{path.stem[:16]}-{threading.get_ident()}{_PART}"
    try:
        with part.open("r+b" if spare else "wb", buffering=0) as file:
            left = memoryview(data).cast("B")
            while left.nbytes:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Makes the names in it last; Windows does so by itself and cannot open a folder."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
