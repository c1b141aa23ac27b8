"""Bulk on the coordinator: who may transfer now, and updates that are still arriving."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import torch
import xxhash

from fedstep.common.errors import DataLossError, InvalidInputError, UnavailableError
from fedstep.common.tensors import as_bytes

ACTIVE_TRANSFERS = 4
OPEN_TRANSFERS = 16
SLOW_AFTER_S = 0.5
STALLED_AFTER_S = 20.0


class Slots:
    """Lets a few transfers run at once and the others queue: as fast as all at once, under half the memory.

    A transfer whose peer is slow does not hold the others up: after half a second without progress it goes on
    outside the count, up to a second bound, so that memory stays bounded however many clients are slow. One that does
    not move at all for longer is cut; it goes on where it stopped when its client asks again.
    """

    def __init__(self, active: int = ACTIVE_TRANSFERS, open_at_once: int = OPEN_TRANSFERS) -> None:
        self._active = asyncio.Semaphore(active)
        self._open = asyncio.Semaphore(open_at_once)

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator["Slot"]:
        """A slot for the time of one transfer.

        Raises:
            UnavailableError: Nothing moved for `STALLED_AFTER_S`.
        """
        async with self._open:
            await self._active.acquire()
            slot = Slot(self._active)
            try:
                async with asyncio.timeout(None) as limit:
                    slot.watch(limit)
                    yield slot
            except TimeoutError:
                raise UnavailableError(
                    f"Nothing of the transfer has moved for {STALLED_AFTER_S:g} s; go on later."
                ) from None
            finally:
                slot.release()


class Slot:
    """One transfer's place. Looked at now and then: a chunk that moves costs no timer of its own."""

    def __init__(self, active: asyncio.Semaphore) -> None:
        self._active: asyncio.Semaphore | None = active
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._began_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held_s(self) -> float:
        """How long the transfer has taken; the time in the queue before it is nobody's pace."""
        return self._loop.time() - self._began_at

    def progress(self) -> None:
        """Says that a chunk has moved."""
        self._moved_at = self._loop.time()

    def watch(self, limit: asyncio.Timeout) -> None:
        """Frees the place of a slow transfer, and ends one that has stalled."""
        idle_s = self._loop.time() - self._moved_at
        if idle_s >= STALLED_AFTER_S:
            limit.reschedule(self._loop.time())
            return
        if idle_s >= SLOW_AFTER_S:
            self._free()
        self._timer = self._loop.call_later(SLOW_AFTER_S / 2, self.watch, limit)

    def release(self) -> None:
        """The transfer is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._free()

    def _free(self) -> None:
        if self._active is not None:
            self._active.release()
            self._active = None


class Upload:
    """An update as far as it has arrived: its bytes and the checksum of them, both taken as they come."""

    def __init__(self, buffer: torch.Tensor, checksum: bytes) -> None:
        self.buffer = buffer
        self.checksum = checksum
        self.received = 0
        self.in_use = False
        self._view = as_bytes(buffer)
        self._computed = xxhash.xxh3_128()

    def restart(self, checksum: bytes) -> None:
        """Forgets what has arrived."""
        self.checksum, self.received, self._computed = checksum, 0, xxhash.xxh3_128()

    def write(self, chunk: memoryview) -> None:
        """Copies the next chunk to its place.

        Raises:
            InvalidInputError: It is longer than the update was said to be.
        """
        end = self.received + len(chunk)
        if end > len(self._view):
            raise InvalidInputError(f"More than the {len(self._view)} bytes announced have come.")
        self._view[self.received : end] = chunk
        self._computed.update(chunk)
        self.received = end

    def verify(self) -> None:
        """Holds the whole update against its checksum.

        Raises:
            DataLossError: They do not agree; the upload starts again from 0.
        """
        if self._computed.digest() != self.checksum:
            self.restart(self.checksum)
            raise DataLossError("The update does not match its checksum: it was corrupted on the way; send it again.")

    def update(self) -> torch.Tensor:
        """The update, float32 [elements]: a view, valid until the buffer is given back."""
        return self.buffer.view(torch.float32)


class UploadPool:
    """Buffers for arriving updates. Reused, because fresh memory costs more than the copy into it."""

    def __init__(self, spare: int = ACTIVE_TRANSFERS) -> None:
        self._uploads: dict[tuple[str, int], Upload] = {}
        self._spare: list[torch.Tensor] = []
        self._max_spare = spare

    def get(self, assignment_id: str, attempt: int) -> Upload | None:
        """What has arrived of an assignment's update; None when nothing has."""
        return self._uploads.get((assignment_id, attempt))

    def open(self, assignment_id: str, attempt: int, size_bytes: int, checksum: bytes) -> Upload:
        """The assignment's upload, new or as far as an earlier connection brought it."""
        key = (assignment_id, attempt)
        upload = self._uploads.get(key)
        if upload is None:
            self._forget_one_cut_off()
            upload = self._uploads[key] = Upload(self._buffer(size_bytes), checksum)
        elif upload.checksum != checksum:
            upload.restart(checksum)
        return upload

    def close(self, assignment_id: str, attempt: int) -> None:
        """Gives an assignment's buffer back, unless a transfer still writes to it."""
        upload = self._uploads.get((assignment_id, attempt))
        if upload is not None and not upload.in_use:
            del self._uploads[assignment_id, attempt]
            if len(self._spare) < self._max_spare:
                self._spare.append(upload.buffer)

    def _forget_one_cut_off(self) -> None:
        """Keeps what waits for its client to come back within bounds: the oldest starts again from 0."""
        if len(self._uploads) >= OPEN_TRANSFERS:
            cut_off = next((key for key, upload in self._uploads.items() if not upload.in_use), None)
            if cut_off is not None:
                self.close(*cut_off)

    def _buffer(self, size_bytes: int) -> torch.Tensor:
        for index, buffer in enumerate(self._spare):
            if buffer.numel() == size_bytes:
                return self._spare.pop(index)
        self._spare.clear()  # of another model: its size is not wanted any more
        return torch.empty(size_bytes, dtype=torch.uint8)
