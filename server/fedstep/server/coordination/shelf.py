"""Models that clients may fetch, cut into chunks once for all of them."""

from dataclasses import dataclass

import torch

from fedstep.common import wire
from fedstep.common.errors import NotFoundError
from fedstep.common.tensors import Manifest, as_bytes, checksum
from fedstep.server.storage.blobs import check_layout


@dataclass(frozen=True)
class ShelvedModel:
    """A model ready to be sent.

    Attributes:
        manifest: Its layout.
        sha256: Its digest, 32 bytes.
        checksum: Its payload's, which receivers hold it against.
        frames: Its payload as serialised messages of one chunk each; shared by every transfer.
    """

    manifest: Manifest
    sha256: bytes
    checksum: bytes
    frames: tuple[bytes, ...]

    def frames_from(self, offset: int) -> "list[bytes] | tuple[bytes, ...]":
        """The frames from a byte of the payload on."""
        if offset == 0:
            return self.frames
        first, inside = divmod(offset, wire.CHUNK_BYTES)
        if inside == 0:
            return self.frames[first:]
        header_bytes = len(self.frames[first]) - self._chunk_bytes(first)
        rest = memoryview(self.frames[first])[header_bytes + inside :]
        return [wire.frame(rest), *self.frames[first + 1 :]]

    def _chunk_bytes(self, index: int) -> int:
        return min(wire.CHUNK_BYTES, self.manifest.payload_bytes - index * wire.CHUNK_BYTES)


@dataclass(frozen=True)
class Cut:
    """A payload ready to be sent: see `ShelvedModel`."""

    checksum: bytes
    frames: tuple[bytes, ...]


def cut(payload: torch.Tensor) -> Cut:
    """A payload's checksum and frames. Copies it: call it off the event loop."""
    return Cut(checksum(payload), tuple(wire.frames(as_bytes(payload))))


class Shelf:
    """The models in use, by digest. Each run keeps its latest there and takes it away when the next one comes."""

    def __init__(self) -> None:
        self._models: dict[bytes, ShelvedModel] = {}
        self._users: dict[bytes, int] = {}

    def put(self, cut: Cut, manifest: Manifest, sha256: bytes) -> None:
        """Adds a model, or one more user of it.

        Raises:
            UnavailableError: A model of the same bytes and another layout is there.
        """
        there = self._models.get(sha256)
        if there is not None:
            check_layout(sha256, there.manifest, manifest)
        else:
            self._models[sha256] = ShelvedModel(manifest, sha256, cut.checksum, cut.frames)
        self._users[sha256] = self._users.get(sha256, 0) + 1

    def share(self, sha256: bytes, manifest: Manifest) -> bool:
        """Adds a user of a model that is there; answers whether it is.

        Raises:
            UnavailableError: A model of the same bytes and another layout is there.
        """
        there = self._models.get(sha256)
        if there is None:
            return False
        check_layout(sha256, there.manifest, manifest)
        self._users[sha256] += 1
        return True

    def drop(self, sha256: bytes) -> None:
        """Takes away one user of a model; the model goes with the last. Transfers under way are not cut."""
        left = self._users.pop(sha256, 0) - 1
        if left > 0:
            self._users[sha256] = left
        else:
            self._models.pop(sha256, None)

    def get(self, sha256: bytes) -> ShelvedModel:
        """The model of that digest.

        Raises:
            NotFoundError: No run uses it any more.
        """
        model = self._models.get(sha256)
        if model is None:
            raise NotFoundError(f"No model {sha256.hex()[:16]} is in use now: the assignment that named it is over.")
        return model
