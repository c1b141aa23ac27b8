"""Models fetched from the coordinator: resumed after a cut, verified, and kept while they may be asked for again."""

import asyncio
import random
from collections import OrderedDict
from dataclasses import dataclass

import grpc.aio
import torch
from google.protobuf.message import Message

from fedstep.client.bucket import Bucket
from fedstep.client.link import Link, OpenLink
from fedstep.client.retry import Backoff, CutError, Persistence, cuts
from fedstep.client.work import Model
from fedstep.common import wire
from fedstep.common.errors import DataLossError, ExhaustedError
from fedstep.common.tensors import Manifest, as_bytes, checksum
from fedstep.v1 import fleet_pb2 as pb

_METHOD = "/fedstep.v1.FleetService/FetchModel"


@dataclass
class _Part:
    """A model under way.

    Attributes:
        model: Its layout and its buffer, once the header has come.
        held: Bytes of the payload that have arrived, from its start.
        checksum: What the coordinator says of the whole.
    """

    model: Model | None = None
    held: int = 0
    checksum: bytes = b""

    @property
    def whole(self) -> bool:
        return self.model is not None and self.held == self.model.manifest.payload_bytes


class ModelFetcher:
    """Fetches one model by its digest, however often the connection breaks."""

    def __init__(
        self,
        link: Link,
        rng: random.Random,
        max_bytes: int = 8 << 30,
        stall_s: float = 20.0,
        backoff: Backoff = Backoff(),  # noqa: B008  # frozen
        bucket: Bucket | None = None,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            link: Where the coordinator is.
            rng: For the waits between attempts.
            max_bytes: The largest model that is taken.
            stall_s: An attempt ends when nothing has come for this long.
            backoff: The waits between attempts.
            bucket: What paces the chunks that come, if anything does.
        """
        self._link = link
        self._bucket = bucket
        self._rng = rng
        self._max_bytes = max_bytes
        self._stall_s = stall_s
        self._backoff = backoff

    async def fetch(self, digest: bytes) -> Model:
        """The model of that digest, verified.

        Raises:
            DataLossError: It came twice and neither time matched its checksum.
            ExhaustedError: It is larger than this client takes.
            FedstepError: The coordinator refused, or the connection broke too often.
        """
        part = _Part()
        corrupt = 0
        persistence = Persistence(self._rng, self._backoff)
        while True:
            way = await self._link.wait()
            before = part.held
            try:
                async with cuts(self._link, way, self._stall_s):
                    await self._receive(way, digest, part)
            except CutError as cut:
                if part.held > before:
                    persistence.advance()
                await persistence.pause(cut)
                continue
            assert part.model is not None
            if checksum(part.model.payload) == part.checksum:
                return part.model
            corrupt += 1
            if corrupt > 1:
                raise DataLossError(
                    f"Model {digest.hex()[:12]} arrived corrupt twice from {way.peer}: "
                    "look at the network between, or at the coordinator's model folder."
                )
            part = _Part()

    async def _receive(self, way: OpenLink, digest: bytes, part: _Part) -> None:
        """One attempt: from the first byte not held to the last."""
        method = way.channel.unary_stream(
            _METHOD,
            request_serializer=pb.FetchModelRequest.SerializeToString,
            response_deserializer=wire.deserializer(pb.FetchModelResponse),
        )
        call = method(pb.FetchModelRequest(session_id=way.session_id, sha256=digest, offset=part.held))
        try:
            self._accept_header(await self._read(call), digest, part)
            assert part.model is not None
            buffer = as_bytes(part.model.payload)
            while not part.whole:
                chunk = _chunk_of(await self._read(call))
                end = part.held + len(chunk)
                if end > len(buffer):
                    raise DataLossError(f"{way.peer} sent more bytes of a model than its manifest announces.")
                buffer[part.held : end] = chunk
                part.held = end
                if self._bucket is not None:
                    await self._bucket.pass_through(len(chunk))
        finally:
            call.cancel()

    async def _read(
        self, call: "grpc.aio.UnaryStreamCall[Message, pb.FetchModelResponse | memoryview]"
    ) -> pb.FetchModelResponse | memoryview:
        async with asyncio.timeout(self._stall_s):
            message = await call.read()
        if isinstance(message, pb.FetchModelResponse | memoryview):
            return message
        raise CutError("the model ended before its last byte")

    def _accept_header(self, message: pb.FetchModelResponse | memoryview, digest: bytes, part: _Part) -> None:
        """Takes note of the layout, and makes room for it once its size is known to be sane."""
        if isinstance(message, memoryview) or message.WhichOneof("part") != "header":
            raise DataLossError("A model came without its header: run the same version of fedstep on both sides.")
        header = message.header
        if header.sha256 != digest or header.offset not in (0, part.held):
            raise DataLossError(
                f"Asked for model {digest.hex()[:12]} from byte {part.held}, and got {header.sha256.hex()[:12]} from "
                f"byte {header.offset}: run the same version of fedstep on both sides."
            )
        part.held, part.checksum = header.offset, header.checksum
        if part.model is not None:
            return
        manifest = Manifest.from_proto(header.manifest)
        if manifest.payload_bytes > self._max_bytes:
            raise ExhaustedError(
                f"The model has {manifest.payload_bytes} bytes, and this client takes at most {self._max_bytes}."
            )
        part.model = Model(manifest, torch.empty(manifest.payload_bytes, dtype=torch.uint8), digest)


class ModelCache:
    """The models this client holds, by digest: the last two. Requests for the same one share one fetch."""

    def __init__(self, fetcher: ModelFetcher, kept: int = 2) -> None:
        self._fetcher = fetcher
        self._kept = kept
        self._models: OrderedDict[bytes, Model] = OrderedDict()
        self._fetches: dict[bytes, asyncio.Task[Model]] = {}
        self._waiting: dict[bytes, int] = {}

    async def get(self, digest: bytes) -> Model:
        """The model of that digest, fetched unless it is held.

        A fetch goes on for as long as anybody waits for it.

        Raises:
            FedstepError: As `ModelFetcher.fetch`.
        """
        held = self._models.get(digest)
        if held is not None:
            self._models.move_to_end(digest)
            return held
        task = self._fetches.get(digest)
        if task is None:
            task = self._fetches[digest] = asyncio.create_task(self._fetcher.fetch(digest), name="fetch model")
        self._waiting[digest] = self._waiting.get(digest, 0) + 1
        try:
            model = await asyncio.shield(task)
        finally:
            self._waiting[digest] -= 1
            if not self._waiting[digest]:
                del self._waiting[digest], self._fetches[digest]
                task.cancel()  # the last to wait has left; nothing happens where it is done
        self._models[digest] = model
        while len(self._models) > self._kept:
            self._models.popitem(last=False)
        return model


def _chunk_of(message: pb.FetchModelResponse | memoryview) -> memoryview | bytes:
    if isinstance(message, memoryview):
        return message
    if message.WhichOneof("part") != "chunk":
        raise DataLossError("A model came with two headers: run the same version of fedstep on both sides.")
    return message.chunk
