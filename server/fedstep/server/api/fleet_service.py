"""FleetService: clients' control streams, and models and updates in bulk."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from fedstep.common import wire
from fedstep.common.durations import seconds_of
from fedstep.common.errors import InvalidInputError, UnavailableError
from fedstep.common.tensors import CHECKSUM_BYTES
from fedstep.common.version import VERSION
from fedstep.server.api.access import check_name
from fedstep.server.api.handlers import Context
from fedstep.server.api.probe import Probe
from fedstep.server.coordination.executors import Executors, to_its_end
from fedstep.server.coordination.fleet import Fetch, Fleet, Member
from fedstep.server.coordination.ledger import Ledger, OpenAssignment
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.transfers import Slot, Slots, Upload, UploadPool
from fedstep.v1 import fleet_pb2

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
MAX_CHUNK_BYTES = 4 << 20
MAX_DOWNLOADS = 10_000
QUIET_S = 15.0
"""How long a control stream may be silent towards its client: proxies end those that are for 30 to 60 s."""


class FleetService:
    """The servicer. Bulk calls use hand-written chunk framing, see `fedstep.common.wire`.

    Args:
        fleet: Who is there.
        ledger: Their work.
        shelf: Models they may fetch.
        executors: For hashing and copying.
        probe: Answers who only asks.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, shelf: Shelf, executors: Executors, probe: Probe) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._shelf = shelf
        self._executors = executors
        self._probe = probe
        self._downloads = Slots(open_at_once=MAX_DOWNLOADS)  # chunks are shared: a slow one holds next to nothing
        self._uploads = Slots()
        self._pool = UploadPool()
        ledger.when_closed(self._forget)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """The service's methods for the server."""
        return {
            "Connect": grpc.stream_stream_rpc_method_handler(
                self.connect,
                fleet_pb2.ConnectRequest.FromString,
                fleet_pb2.ConnectResponse.SerializeToString,
            ),
            "FetchModel": grpc.unary_stream_rpc_method_handler(
                self.fetch_model, fleet_pb2.FetchModelRequest.FromString, wire.serialize
            ),
            "PushUpdate": grpc.stream_unary_rpc_method_handler(
                self.push_update,
                wire.deserializer(fleet_pb2.PushUpdateRequest),
                fleet_pb2.PushUpdateResponse.SerializeToString,
            ),
            "Probe": grpc.stream_stream_rpc_method_handler(
                self._probe.probe, fleet_pb2.ProbeRequest.FromString, fleet_pb2.ProbeResponse.SerializeToString
            ),
        }

    def _forget(self, assignment: OpenAssignment) -> None:
        self._pool.close(assignment.ref.assignment_id, assignment.ref.attempt)

    # control ----------------------------------------------------------------------------------------------------

    async def connect(
        self, requests: AsyncIterator[fleet_pb2.ConnectRequest], context: Context
    ) -> AsyncIterator[fleet_pb2.ConnectResponse]:
        """One client's control stream."""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(aiter(requests))
        except (TimeoutError, StopAsyncIteration):
            raise InvalidInputError("The first message of Connect must be a Hello, within 10 s.") from None
        if first.WhichOneof("message") != "hello":
            raise InvalidInputError("The first message of Connect must be a Hello.")
        check_name(context, first.hello.client_name)
        member = await self._fleet.join(first.hello)
        stream, outbox = member.stream, member.outbox
        reader = asyncio.create_task(self._read(requests, member, outbox), name=f"control of {member.name}")
        try:
            yield self._welcome(member)
            self._ledger.reconcile(member, list(first.hello.running))
            while (message := await _next_word(outbox)) is not None:
                yield message
        finally:
            reader.cancel()
            (ended,) = await asyncio.gather(reader, return_exceptions=True)
            if isinstance(ended, Exception) and not isinstance(ended, grpc.RpcError):
                log.error("the control stream of %s ended", member.name, exc_info=ended)
            await self._fleet.left(member, stream)

    def _welcome(self, member: Member) -> fleet_pb2.ConnectResponse:
        policy = self._fleet.policy
        welcome = fleet_pb2.Welcome(
            session_id=member.session_id,
            version=VERSION,
            report_max_steps=policy.report_max_steps,
            max_chunk_bytes=MAX_CHUNK_BYTES,
        )
        welcome.lease.FromTimedelta(policy.lease)
        welcome.heartbeat_interval.FromTimedelta(policy.heartbeat_interval)
        welcome.report_interval.FromTimedelta(policy.report_interval)
        return fleet_pb2.ConnectResponse(welcome=welcome)

    async def _read(
        self,
        requests: AsyncIterator[fleet_pb2.ConnectRequest],
        member: Member,
        outbox: asyncio.Queue[fleet_pb2.ConnectResponse | None],
    ) -> None:
        """Takes in what the client says, until it has no more to say; then the stream ends."""
        try:
            async for request in requests:
                self._fleet.heard(member)
                match request.WhichOneof("message"):
                    case "step_report":
                        self._ledger.report(member, request.step_report)
                    case "outcome":
                        self._ledger.outcome(member, request.outcome)
        finally:
            if outbox.full():
                outbox.get_nowait()
            outbox.put_nowait(None)

    # bulk -------------------------------------------------------------------------------------------------------

    async def fetch_model(self, request: fleet_pb2.FetchModelRequest, context: Context) -> None:
        """A model's payload from an offset on."""
        member = self._member(request.session_id, context)
        model = self._shelf.get(request.sha256)
        size = model.manifest.payload_bytes
        if request.offset > size:
            raise InvalidInputError(f"The model has {size} bytes; there is nothing at offset {request.offset}.")
        async with self._downloads.hold() as slot:
            header = fleet_pb2.ModelHeader(
                manifest=model.manifest.to_proto(),
                sha256=model.sha256,
                offset=request.offset,
                checksum=model.checksum,
            )
            await context.write(fleet_pb2.FetchModelResponse(header=header))
            for frame in model.frames_from(request.offset):
                await context.write(frame)
                slot.progress()
            member.fetch = Fetch(request.sha256, size - request.offset, slot.held_s)
        self._fleet.heard(member)

    async def push_update(
        self, requests: AsyncIterator[fleet_pb2.PushUpdateRequest | memoryview], context: Context
    ) -> fleet_pb2.PushUpdateResponse:
        """One update, or the rest of it, or a question how much of it is here."""
        header = await self._header(context)
        member = self._member(header.session_id, context)
        with self._ledger.update_for(header.ref, member) as assignment:
            return await self._receive(context, header, assignment)

    def _member(self, session_id: str, context: Context) -> Member:
        """Whose session it is; a session is of no use to another client that has come to know of it."""
        member = self._fleet.session(session_id)
        check_name(context, member.name)
        return member

    async def _header(self, context: Context) -> fleet_pb2.UpdateHeader:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await _next_part(context)
        except TimeoutError:
            first = None
        if not isinstance(first, fleet_pb2.PushUpdateRequest) or first.WhichOneof("part") != "header":
            raise InvalidInputError("The first message of PushUpdate must be a header, within 10 s.")
        return first.header

    async def _receive(
        self, context: Context, header: fleet_pb2.UpdateHeader, assignment: OpenAssignment
    ) -> fleet_pb2.PushUpdateResponse:
        ref = assignment.ref
        if len(header.checksum) != CHECKSUM_BYTES:
            raise InvalidInputError(f"A checksum of {len(header.checksum)} bytes; XXH3-128 has {CHECKSUM_BYTES}.")
        assignment.check_size(header.payload_bytes)
        async with self._uploads.hold() as slot:
            first = await _next_part(context)
            upload = self._pool.get(ref.assignment_id, ref.attempt)
            if first is None:  # a question
                held = upload.received if upload and upload.checksum == header.checksum else 0
                return fleet_pb2.PushUpdateResponse(received_bytes=held)
            upload = self._pool.open(ref.assignment_id, ref.attempt, header.payload_bytes, header.checksum)
            if upload.in_use:
                raise UnavailableError("This update is arriving on another call already; ask again in a moment.")
            upload.in_use = True
            try:
                await self._fill(upload, header.offset, first, context, slot)
                assignment.push_s += slot.held_s
                if upload.received < header.payload_bytes:
                    return fleet_pb2.PushUpdateResponse(received_bytes=upload.received)
                # To its end, also when the client hangs up meanwhile: half an update must not be in the sum.
                await to_its_end(self._take(upload, assignment, header.summary))
            finally:
                upload.in_use = False
                if assignment.status.ended:
                    self._pool.close(ref.assignment_id, ref.attempt)
            return fleet_pb2.PushUpdateResponse(received_bytes=header.payload_bytes, accepted=True)

    async def _take(self, upload: Upload, assignment: OpenAssignment, summary: fleet_pb2.TrainingSummary) -> None:
        upload.verify()
        assignment.fetch_s = max(0.0, seconds_of(summary.fetch_time))
        await assignment.owner.take_update(assignment, upload.update(), summary)

    async def _fill(
        self,
        upload: Upload,
        offset: int,
        first: fleet_pb2.PushUpdateRequest | memoryview,
        context: Context,
        slot: Slot,
    ) -> None:
        """Copies chunks as they come."""
        if offset == 0 and upload.received:
            upload.restart(upload.checksum)
        if offset != upload.received:
            raise UnavailableError(f"Chunks from byte {offset} on, where {upload.received} bytes are here; ask first.")
        part: fleet_pb2.PushUpdateRequest | memoryview | None = first
        while part is not None:
            upload.write(_chunk(part))
            slot.progress()
            part = await _next_part(context)


async def _next_word(outbox: asyncio.Queue[fleet_pb2.ConnectResponse | None]) -> fleet_pb2.ConnectResponse | None:
    """What a client is told next; a heartbeat where that is nothing for long; None at the stream's end."""
    try:
        async with asyncio.timeout(QUIET_S):
            return await outbox.get()
    except TimeoutError:
        return fleet_pb2.ConnectResponse(heartbeat=fleet_pb2.Heartbeat())


def _chunk(part: fleet_pb2.PushUpdateRequest | memoryview) -> memoryview:
    chunk = part if isinstance(part, memoryview) else memoryview(part.chunk)
    if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
        raise InvalidInputError(f"A chunk of {len(chunk)} bytes; it must have 1 to {MAX_CHUNK_BYTES}.")
    return chunk


async def _next_part(context: Context) -> fleet_pb2.PushUpdateRequest | memoryview | None:
    """The next message of an upload; None at its end."""
    part: fleet_pb2.PushUpdateRequest | memoryview | object = await context.read()
    return part if isinstance(part, fleet_pb2.PushUpdateRequest | memoryview) else None  # grpc.aio.EOF
