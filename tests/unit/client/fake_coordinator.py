"""A coordinator for tests: real sockets, real protocol, and faults on demand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import torch

from fedstep.common import wire
from fedstep.common.channel import SERVER_OPTIONS
from fedstep.common.tensors import Manifest, as_bytes, checksum, pack, sha256
from fedstep.v1 import fleet_pb2 as pb


async def eventually(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


@dataclass
class Stored:
    manifest: Manifest
    payload: torch.Tensor


@dataclass
class Upload:
    header: pb.UpdateHeader
    data: bytearray = field(default_factory=bytearray)


class FakeCoordinator:
    """Records what it is told; says what it is told to say."""

    def __init__(self) -> None:
        self.port = 0
        self.hellos: list[pb.Hello] = []
        self.heartbeats = 0
        self.reports: list[pb.StepReport] = []
        self.outcomes: list[pb.Outcome] = []
        self.received: list[str] = []  # kinds of everything told, in order
        self.welcome = pb.Welcome(session_id="", report_max_steps=100, max_chunk_bytes=1 << 20)
        self.welcome.heartbeat_interval.FromMilliseconds(100)
        self.welcome.report_interval.FromMilliseconds(50)
        self.refuse: tuple[grpc.StatusCode, str] | None = None
        self.streams = 0
        self._outgoing: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        # models
        self.models: dict[bytes, Stored] = {}
        self.fetches: list[pb.FetchModelRequest] = []
        self.cut_fetches_after: list[int] = []  # one cut each, after so many bytes
        self.corrupt_fetches = 0
        self.hold_fetches = asyncio.Event()
        self.hold_fetches.set()
        # updates
        self.push_headers: list[pb.UpdateHeader] = []
        self.uploads: dict[tuple[str, int], Upload] = {}
        self.accepted: list[tuple[pb.UpdateHeader, bytes]] = []
        self.cut_pushes_after: list[int] = []
        self.corrupt_pushes = 0
        self.refuse_pushes: tuple[grpc.StatusCode, str] | None = None
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=SERVER_OPTIONS)
        handlers: dict[str, grpc.RpcMethodHandler] = {
            "Connect": grpc.stream_stream_rpc_method_handler(
                self._connect, pb.ConnectRequest.FromString, pb.ConnectResponse.SerializeToString
            ),
            "FetchModel": grpc.unary_stream_rpc_method_handler(
                self._fetch, pb.FetchModelRequest.FromString, wire.serialize
            ),
            "PushUpdate": grpc.stream_unary_rpc_method_handler(
                self._push, wire.deserializer(pb.PushUpdateRequest), pb.PushUpdateResponse.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("fedstep.v1.FleetService", handlers),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """At once: every stream is cut."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def store(self, state: dict[str, torch.Tensor]) -> bytes:
        manifest = Manifest.of(state)
        payload = pack(state, manifest)
        digest = sha256(payload)
        self.models[digest] = Stored(manifest, payload)
        return digest

    def assign(self, assignment: pb.Assignment) -> None:
        self._outgoing.put_nowait(pb.ConnectResponse(assignment=assignment))

    def direct(self, ref: pb.AssignmentRef, kind: pb.DirectiveKind.ValueType, reason: str = "") -> None:
        self._outgoing.put_nowait(pb.ConnectResponse(directive=pb.Directive(ref=ref, kind=kind, reason=reason)))

    def say(self, message: pb.ConnectResponse) -> None:
        self._outgoing.put_nowait(message)

    def cut_stream(self) -> None:
        """Ends the control stream and nothing else."""
        self._outgoing.put_nowait(None)

    def steps_of(self, assignment_id: str) -> list[float]:
        return [loss for report in self.reports if report.ref.assignment_id == assignment_id for loss in report.loss]

    async def _connect(
        self, requests: AsyncIterator[pb.ConnectRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ConnectResponse]:
        first = await anext(aiter(requests))
        self.hellos.append(first.hello)
        if self.refuse:
            await context.abort(*self.refuse)
        self.streams += 1
        # The newest stream takes over what is still to be said: an older one may not have noticed its end.
        outgoing: asyncio.Queue[pb.ConnectResponse | None] = asyncio.Queue()
        while not self._outgoing.empty():
            if (message := self._outgoing.get_nowait()) is not None:
                outgoing.put_nowait(message)
        self._outgoing = outgoing
        welcome = pb.Welcome()
        welcome.CopyFrom(self.welcome)
        welcome.session_id = f"session-{self.streams}"
        yield pb.ConnectResponse(welcome=welcome)
        reader = asyncio.create_task(self._read(requests, outgoing))
        try:
            while (message := await outgoing.get()) is not None:
                yield message
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[pb.ConnectRequest], outgoing: asyncio.Queue[pb.ConnectResponse | None]
    ) -> None:
        async for request in requests:
            kind = request.WhichOneof("message") or ""
            self.received.append(kind)
            match kind:
                case "heartbeat":
                    self.heartbeats += 1
                case "step_report":
                    self.reports.append(request.step_report)
                case "outcome":
                    self.outcomes.append(request.outcome)
        outgoing.put_nowait(None)  # as the real one: who has no more to say hears no more

    async def _fetch(
        self, request: pb.FetchModelRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes | pb.FetchModelResponse]:
        self.fetches.append(request)
        if request.sha256 not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        stored = self.models[request.sha256]
        header = pb.ModelHeader(
            manifest=stored.manifest.to_proto(),
            sha256=request.sha256,
            offset=request.offset,
            checksum=checksum(stored.payload),
        )
        yield pb.FetchModelResponse(header=header)
        await self.hold_fetches.wait()
        payload = bytearray(as_bytes(stored.payload))
        if self.corrupt_fetches:
            self.corrupt_fetches -= 1
            payload[-1] ^= 1
        cut = self.cut_fetches_after.pop(0) if self.cut_fetches_after else None
        step = 1000
        for start in range(request.offset, len(payload), step):
            if cut is not None and start >= cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            yield wire.frame(bytes(payload[start : start + step]))

    async def _push(
        self, requests: AsyncIterator[pb.PushUpdateRequest | memoryview], context: grpc.aio.ServicerContext
    ) -> pb.PushUpdateResponse:
        parts = aiter(requests)
        first = await anext(parts)
        assert isinstance(first, pb.PushUpdateRequest)
        header = first.header
        self.push_headers.append(header)
        if self.refuse_pushes:
            await context.abort(*self.refuse_pushes)
        key = (header.ref.assignment_id, header.ref.attempt)
        upload = self.uploads.setdefault(key, Upload(header))
        cut = self.cut_pushes_after.pop(0) if self.cut_pushes_after else None
        asked = True
        async for part in parts:
            assert isinstance(part, memoryview)
            if asked:
                asked = False
                del upload.data[header.offset :]
            upload.data += part
            if cut is not None and len(upload.data) >= cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        if asked or len(upload.data) < header.payload_bytes:
            return pb.PushUpdateResponse(received_bytes=len(upload.data))
        corrupt = self.corrupt_pushes > 0
        self.corrupt_pushes -= corrupt
        if corrupt or checksum(torch.frombuffer(upload.data, dtype=torch.uint8)) != header.checksum:
            del self.uploads[key]
            await context.abort(grpc.StatusCode.DATA_LOSS, "corrupt")
        self.accepted.append((header, bytes(upload.data)))
        return pb.PushUpdateResponse(received_bytes=header.payload_bytes, accepted=True)
