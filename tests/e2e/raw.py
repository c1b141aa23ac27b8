"""A client written from the protocol alone, so that it can do everything wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import torch
import xxhash
from e2e.tiny import MANIFEST, SAMPLES

from fedstep.common import wire
from fedstep.common.channel import open_channel
from fedstep.common.tensors import Manifest, as_bytes
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1 import tensors_pb2
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub

_FLEET = "/fedstep.v1.FleetService"
GOOD = bytes(as_bytes(torch.full((MANIFEST.elements,), 0.01)))
"""An update of the tiny task that is taken."""

Behaviour = Callable[["RawClient", pb.Assignment], Awaitable[None]]


class RawClient:
    """One session of a client; what it does with its assignments is the test's to say.

    Attributes:
        on_train: What it does with an assignment to train; honest unless the test changes it.
        on_evaluate: The same for one to evaluate.
        assignments: All that came, in order.
        directives: The same.
        notices: The same.
        heartbeats: How many came.
        drained: The coordinator has said that it goes away.
    """

    def __init__(self, name: str, control: grpc.aio.Channel, bulk: grpc.aio.Channel) -> None:
        self.name = name
        self.on_train: Behaviour = train_well
        self.on_evaluate: Behaviour = evaluate_well
        self.welcome = pb.Welcome()
        self.assignments: list[pb.Assignment] = []
        self.directives: list[pb.Directive] = []
        self.notices: list[str] = []
        self.heartbeats = 0
        self.drained = False
        self.errors: list[Exception] = []
        self._control = control
        self._bulk = bulk
        self._call: Any = None
        self._working: set[asyncio.Task[None]] = set()

    async def connect(self, hello: pb.Hello) -> None:
        """Says hello and reads the welcome.

        Raises:
            grpc.aio.AioRpcError: It was refused.
        """
        self._call = FleetServiceStub(self._control).Connect()
        await self._call.write(pb.ConnectRequest(hello=hello))
        answer = await self._call.read()
        self.welcome = answer.welcome
        self._start(self._listen())
        self._start(self._live())

    @property
    def session_id(self) -> str:
        return self.welcome.session_id

    def trainings(self) -> list[pb.Assignment]:
        return [a for a in self.assignments if a.work == pb.WORK_TRAIN]

    async def tell(self, message: pb.ConnectRequest) -> None:
        """Writes on the control stream."""
        await self._call.write(message)

    async def report(self, ref: pb.AssignmentRef, losses: list[float], first_step: int = 0) -> None:
        """Tells of local steps of five samples and two milliseconds each."""
        count = len(losses)
        report = pb.StepReport(ref=ref, first_step=first_step, loss=losses, samples=[5] * count, step_ms=[2.0] * count)
        await self.tell(pb.ConnectRequest(step_report=report))

    async def fetch(self, sha256: bytes, offset: int = 0) -> tuple[pb.ModelHeader, bytes]:
        """A model's header and its payload from an offset on."""
        method = self._bulk.unary_stream(
            f"{_FLEET}/FetchModel",
            request_serializer=pb.FetchModelRequest.SerializeToString,
            response_deserializer=pb.FetchModelResponse.FromString,
        )
        call = method(pb.FetchModelRequest(session_id=self.session_id, sha256=sha256, offset=offset))
        parts = [part async for part in call]
        return parts[0].header, b"".join(part.chunk for part in parts[1:])

    async def push(
        self, ref: pb.AssignmentRef, payload: bytes = GOOD, *, chunks: Iterable[bytes] | None = None, **header: Any
    ) -> pb.PushUpdateResponse:
        """Pushes an update; what is given by name takes the place of what would be right.

        Raises:
            grpc.aio.AioRpcError: It was refused.
        """
        fields: dict[str, Any] = {
            "session_id": self.session_id,
            "ref": ref,
            "checksum": xxhash.xxh3_128_digest(payload),
            "payload_bytes": len(payload),
            "offset": 0,
            "summary": pb.TrainingSummary(samples=SAMPLES, steps=2, loss=0.5),
        }
        head = pb.UpdateHeader(**{**fields, **header})
        frames = [wire.frame(chunk) for chunk in ([payload] if chunks is None else chunks)]
        return await self.send([pb.PushUpdateRequest(header=head).SerializeToString(), *frames])

    async def send(self, messages: Iterable[bytes] | AsyncIterator[bytes]) -> pb.PushUpdateResponse:
        """PushUpdate with any messages at all."""
        method: Any = self._bulk.stream_unary(
            f"{_FLEET}/PushUpdate", request_serializer=None, response_deserializer=pb.PushUpdateResponse.FromString
        )
        answer: pb.PushUpdateResponse = await method(messages, timeout=30)
        return answer

    async def _listen(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            match message.WhichOneof("message"):
                case "assignment":
                    self.assignments.append(message.assignment)
                    training = message.assignment.work == pb.WORK_TRAIN
                    self._start((self.on_train if training else self.on_evaluate)(self, message.assignment))
                case "directive":
                    self.directives.append(message.directive)
                case "notice":
                    self.notices.append(message.notice.text)
                case "heartbeat":
                    self.heartbeats += 1
                case "drain":
                    self.drained = True

    async def _live(self) -> None:
        """Heartbeats, as the welcome asks for them."""
        while True:
            await asyncio.sleep(self.welcome.heartbeat_interval.ToMilliseconds() / 1000)
            await self.tell(pb.ConnectRequest(heartbeat=pb.Heartbeat()))

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._working.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._working.discard(task)
        if not task.cancelled() and isinstance(task.exception(), Exception):
            self.errors.append(task.exception())  # type: ignore[arg-type]  # just checked

    async def leave(self) -> None:
        """Ends the session without a word."""
        if self._call is not None:
            self._call.cancel()
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)


async def train_well(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref)


async def evaluate_well(client: RawClient, assignment: pb.Assignment) -> None:
    outcome = pb.Outcome(
        ref=assignment.ref,
        status=pb.OUTCOME_STATUS_COMPLETED,
        metrics={"loss": 1.0, "accuracy": 0.5},
        samples=SAMPLES,
    )
    await client.tell(pb.ConnectRequest(outcome=outcome))


async def do_nothing(client: RawClient, assignment: pb.Assignment) -> None:
    """As a client that hangs."""


def hello(name: str, **fields: Any) -> pb.Hello:
    """A hello that is welcome; what is given by name takes the place of what would be right."""
    right: dict[str, Any] = {
        "client_name": name,
        "instance_id": f"instance of {name}",
        "version": "0",
        "task": "tiny",
        "model": MANIFEST.to_proto(),
        "train_samples": SAMPLES,
        "validation_samples": SAMPLES,
        "device": "none",
    }
    return pb.Hello(**{**right, **fields})


@asynccontextmanager
async def stranger(address: str, name: str = "raw") -> AsyncIterator[RawClient]:
    """A raw client that has not said hello."""
    async with open_channel(address) as control, open_channel(address) as bulk:
        client = RawClient(name, control, bulk)
        try:
            yield client
        finally:
            await client.leave()


@asynccontextmanager
async def raw_client(
    address: str, name: str = "raw", on_train: Behaviour = train_well, **fields: Any
) -> AsyncIterator[RawClient]:
    """A raw client that has been welcomed."""
    async with stranger(address, name) as client:
        client.on_train = on_train
        await client.connect(hello(name, **fields))
        yield client


def layout(**shapes: tuple[int, ...]) -> tensors_pb2.TensorManifest:
    """A sound manifest of float32 tensors."""
    return Manifest.of({name: torch.zeros(shape) for name, shape in shapes.items()}).to_proto()
