"""Models kept in memory, for simulations: the interface of the model folder, and nothing on a disk."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from fedstep.common.errors import InvalidInputError, NotFoundError
from fedstep.common.tensors import Manifest
from fedstep.server.storage.blobs import BlobStore, check_layout

T = TypeVar("T")


class MemoryBlobs(BlobStore):
    """Keeps payloads by their digests until they are removed. Called from one thread."""

    def __init__(self) -> None:
        """Nothing kept yet."""
        self._payloads: dict[bytes, torch.Tensor] = {}
        self._manifests: dict[bytes, Manifest] = {}
        self._holding = 0
        self._during_holds: set[bytes] = set()

    def path(self, sha256: bytes) -> Path:
        """A name for people: there is no such file."""
        return Path("memory", sha256.hex())

    @contextmanager
    def hold(self) -> Iterator[None]:
        """What is put from here on is kept until the end of the block, and of those that overlap it."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
            if not self._holding:
                self._during_holds.clear()

    def held(self) -> set[bytes]:
        """The digests that holds keep at this moment."""
        return set(self._during_holds)

    def put(self, data: memoryview | bytes, sha256: bytes, manifest: Manifest | None = None) -> Path:
        """Copies a payload, unless it is there; see `BlobStore.put`.

        Raises:
            InvalidInputError: The manifest is of a payload of another length.
            UnavailableError: The payload is there with another manifest.
        """
        size = memoryview(data).nbytes
        if manifest is not None and manifest.payload_bytes != size:
            raise InvalidInputError(f"A payload of {size} bytes with a manifest of {manifest.payload_bytes}.")
        if manifest is not None:
            check_layout(sha256, self._manifests.setdefault(sha256, manifest), manifest)
        if self._holding:
            self._during_holds.add(sha256)
        if sha256 not in self._payloads:
            copy = bytearray(data)
            self._payloads[sha256] = torch.frombuffer(copy, dtype=torch.uint8) if size else torch.empty(0).byte()
        return self.path(sha256)

    def get(self, sha256: bytes) -> torch.Tensor:
        """The payload of that digest, uint8 [payload_bytes]: the one that is kept, so nobody may write to it.

        Raises:
            NotFoundError: It is not there.
        """
        return self._of(self._payloads, sha256)

    def manifest(self, sha256: bytes) -> Manifest:
        """The tensors in the payload of that digest.

        Raises:
            NotFoundError: None was put with it, or the payload itself is not there.
        """
        return self._of(self._manifests, sha256)

    def retain(self, keep: Set[bytes]) -> int:
        """Deletes every payload but these and those under a `hold`; answers with how many."""
        gone = self._payloads.keys() - keep - self._during_holds
        self.remove(gone)
        return len(gone)

    def remove(self, digests: Set[bytes]) -> None:
        """Deletes these payloads, those under a `hold` excepted."""
        for digest in digests - self._during_holds:
            self._payloads.pop(digest, None)
            self._manifests.pop(digest, None)

    def _of(self, kept: dict[bytes, T], sha256: bytes) -> T:
        found = kept.get(sha256)
        if found is None:
            raise NotFoundError(f"There is no model {sha256.hex()[:16]} in memory: it was removed, or never put.")
        return found
