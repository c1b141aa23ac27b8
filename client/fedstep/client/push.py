"""Updates pushed to the coordinator: resumed after a cut, from the byte it holds."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from enum import Enum

import grpc.aio
import torch

from fedstep.client.bucket import Bucket
from fedstep.client.link import Link, OpenLink
from fedstep.client.retry import Backoff, CutError, Persistence, cuts
from fedstep.common import wire
from fedstep.common.errors import DataLossError, InvalidInputError, PreconditionError
from fedstep.common.tensors import as_bytes
from fedstep.v1 import fleet_pb2 as pb

_METHOD = "/fedstep.v1.FleetService/PushUpdate"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """What is pushed.

    Attributes:
        ref: The assignment and attempt it answers.
        values: trained − received, float32 [elements] on the CPU, contiguous.
        checksum: `tensors.checksum` of its bytes.
        summary: How it came about.
    """

    ref: pb.AssignmentRef
    values: torch.Tensor
    checksum: bytes
    summary: pb.TrainingSummary


class Pushed(Enum):
    """What became of an update."""

    ACCEPTED = "accepted"
    STALE = "stale"
    REFUSED = "refused"


class UpdatePusher:
    """Pushes one update, however often the connection breaks."""

    def __init__(
        self,
        link: Link,
        rng: random.Random,
        stall_s: float = 20.0,
        backoff: Backoff = Backoff(),  # noqa: B008  # frozen
        bucket: Bucket | None = None,
    ) -> None:
        """Nothing is pushed yet.

        Args:
            link: Where the coordinator is.
            rng: For the waits between attempts.
            stall_s: An attempt ends when nothing has been taken for this long.
            backoff: The waits between attempts.
            bucket: What paces the chunks that go, if anything does.
        """
        self._link = link
        self._bucket = bucket
        self._rng = rng
        self._stall_s = stall_s
        self._backoff = backoff

    async def push(self, update: Update) -> tuple[Pushed, str]:
        """Brings the update to the coordinator.

        Returns:
            What became of it, and the coordinator's sentence where it did not take it.

        Raises:
            DataLossError: It arrived corrupt twice.
            FedstepError: The connection broke too often.
        """
        payload = as_bytes(update.values)
        persistence = Persistence(self._rng, self._backoff)
        held: int | None = 0  # bytes the coordinator has, from the start; None when it must be asked
        furthest = corrupt = 0
        while True:
            way = await self._link.wait()
            asking = held is None
            try:
                async with cuts(self._link, way, self._stall_s):
                    # A header alone asks how much has arrived.
                    start = len(payload) if held is None else held
                    answer = await self._call(way, update, payload, start, offset=held or 0)
                if answer.accepted:
                    return Pushed.ACCEPTED, ""
                held = answer.received_bytes if answer.received_bytes < len(payload) else 0
                if held > furthest:
                    furthest = held
                    persistence.advance()
                if not asking:
                    raise CutError(f"{way.peer} stopped listening in the middle of an update")
            except CutError as cut:
                _logger.debug("the push of %s was cut: %s", update.ref.assignment_id, cut)
                held = None
                await persistence.pause(cut)
            except PreconditionError as stale:
                return Pushed.STALE, stale.message
            except InvalidInputError as refusal:
                return Pushed.REFUSED, refusal.message
            except DataLossError:
                corrupt += 1
                if corrupt > 1:
                    raise
                held = 0

    async def _call(
        self, way: OpenLink, update: Update, payload: memoryview, start: int, offset: int
    ) -> pb.PushUpdateResponse:
        """One attempt: a header that says `offset`, and the payload from `start` on."""
        method = way.channel.stream_unary(
            _METHOD, request_serializer=wire.serialize, response_deserializer=pb.PushUpdateResponse.FromString
        )
        header = pb.UpdateHeader(
            session_id=way.session_id,
            ref=update.ref,
            checksum=update.checksum,
            payload_bytes=len(payload),
            offset=offset,
            summary=update.summary,
        )
        call = method()
        try:
            # Where the coordinator answers before the last byte, a write fails without saying why; the answer does.
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await self._write(call.write(pb.PushUpdateRequest(header=header)))
                for frame in _frames(payload, start, way.max_chunk_bytes):
                    if self._bucket is not None:
                        await self._bucket.pass_through(len(frame))
                    await self._write(call.write(frame))
                await call.done_writing()
            async with asyncio.timeout(self._stall_s):
                return await call
        finally:
            call.cancel()

    async def _write(self, write: Awaitable[None]) -> None:
        async with asyncio.timeout(self._stall_s):
            await write


def _frames(payload: memoryview, start: int, max_chunk_bytes: int) -> Iterator[bytes]:
    step = min(wire.CHUNK_BYTES, max_chunk_bytes) or wire.CHUNK_BYTES
    for offset in range(start, len(payload), step):
        yield wire.frame(payload[offset : offset + step])
