"""A bare client of the control stream, for the benchmarks: it speaks the protocol and does no work."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from fedstep.common.channel import open_channel
from fedstep.common.tensors import Manifest
from fedstep.v1 import fleet_pb2, fleet_pb2_grpc

NOBODYS = fleet_pb2.AssignmentRef(assignment_id="nobody's", attempt=1)


class Probe:
    """One control stream.

    Args:
        stream: The open call.
        session_id: What the coordinator named it.
    """

    def __init__(self, stream: "grpc.aio.StreamStreamCall", session_id: str) -> None:
        self.stream = stream
        self.session_id = session_id

    async def read(self, kind: str) -> fleet_pb2.ConnectResponse:
        """The next message of a kind; others are passed over."""
        while True:
            message = await self.stream.read()
            assert message is not grpc.aio.EOF, "the coordinator ended the stream"
            if message.WhichOneof("message") == kind:
                return message

    async def report(self, report: fleet_pb2.StepReport) -> None:
        """Sends local steps."""
        await self.stream.write(fleet_pb2.ConnectRequest(step_report=report))

    async def round_trip(self) -> None:
        """A message there and its answer back: work that nobody wants is called off."""
        await self.report(fleet_pb2.StepReport(ref=NOBODYS))
        while (await self.read("directive")).directive.ref != NOBODYS:
            pass


@asynccontextmanager
async def probe(address: str, name: str, manifest: Manifest | None = None, samples: int = 0) -> AsyncIterator[Probe]:
    """Connects; a probe without samples is given no work."""
    async with open_channel(address) as channel:
        stream = fleet_pb2_grpc.FleetServiceStub(channel).Connect(wait_for_ready=True)
        hello = fleet_pb2.Hello(
            client_name=name,
            instance_id=uuid.uuid4().hex,
            task="echo",
            model=(manifest or Manifest(())).to_proto(),
            train_samples=samples,
        )
        await stream.write(fleet_pb2.ConnectRequest(hello=hello))
        welcome = await stream.read()
        try:
            yield Probe(stream, welcome.welcome.session_id)
        finally:
            stream.cancel()
