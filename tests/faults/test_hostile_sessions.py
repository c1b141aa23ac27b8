"""Strangers on the control stream."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from e2e.inside import Inside, inside
from e2e.raw import RawClient, hello, layout, raw_client, stranger
from e2e.studies import spec
from e2e.tiny import MANIFEST, tiny_agent
from e2e.waiting import until

from fedstep.server.coordination.fleet import OUTBOX_MESSAGES
from fedstep.server.storage.base import StudyState
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1 import tensors_pb2


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path) as running:
        yield running


def tensor(**fields: Any) -> tensors_pb2.TensorManifest:
    """A manifest of one tensor of four floats, but for what is given."""
    right: dict[str, Any] = {"name": "w", "shape": [4], "data_type": tensors_pb2.DATA_TYPE_FLOAT32}
    return tensors_pb2.TensorManifest(tensors=[tensors_pb2.TensorSpec(**{**right, **fields})], payload_bytes=16)


HOSTILE = {
    "of no type": tensor(data_type=tensors_pb2.DATA_TYPE_UNSPECIFIED),
    "of an unknown type": tensor(data_type=99),
    "of a negative size": tensor(shape=[-4]),
    "beyond all memory": tensor(shape=[1 << 40, 1 << 40]),
    "that overlaps": tensors_pb2.TensorManifest(
        tensors=[*tensor().tensors, *tensor(name="v").tensors], payload_bytes=16
    ),
    "with a gap": tensor(offset_bytes=4),
    "with the same name twice": tensors_pb2.TensorManifest(
        tensors=[*tensor().tensors, *tensor(offset_bytes=16).tensors], payload_bytes=32
    ),
    "of another size than it says": tensors_pb2.TensorManifest(tensors=tensor().tensors, payload_bytes=1 << 40),
}


@pytest.mark.parametrize("manifest", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hello_with_a_layout_that_cannot_be_is_refused(
    host: Inside, manifest: tensors_pb2.TensorManifest
) -> None:
    async with stranger(host.address) as client:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.connect(hello("mallory", model=manifest))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert host.coordinator.parts.fleet.members() == []


@pytest.mark.parametrize("name", ["", "x" * 129, "tab\there", "\x1b[31mred", "line\nbreak"])
async def test_a_name_that_would_spoil_a_table_is_refused(host: Inside, name: str) -> None:
    async with stranger(host.address) as client:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.connect(hello(name))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "--name" in (error.value.details() or "")


@pytest.mark.parametrize(
    "first",
    [
        pb.ConnectRequest(),
        pb.ConnectRequest(heartbeat=pb.Heartbeat()),
        pb.ConnectRequest(outcome=pb.Outcome(message="hi")),
    ],
    ids=["nothing", "heartbeat", "outcome"],
)
async def test_the_first_message_must_be_a_hello(host: Inside, first: pb.ConnectRequest) -> None:
    async with stranger(host.address) as client:
        call = client._control.stream_stream(
            "/fedstep.v1.FleetService/Connect",
            request_serializer=pb.ConnectRequest.SerializeToString,
            response_deserializer=pb.ConnectResponse.FromString,
        )()
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Hello" in (error.value.details() or "")


async def test_garbage_on_the_control_stream_harms_nobody(host: Inside) -> None:
    async with stranger(host.address) as client:
        call: Any = client._control.stream_stream("/fedstep.v1.FleetService/Connect")()
        await call.write(b"\xff" * 1000)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    async with tiny_agent(host.address, "honest"):
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_a_second_hello_and_empty_messages_are_passed_over(host: Inside) -> None:
    async with raw_client(host.address, "chatty") as client:
        await client.tell(pb.ConnectRequest(hello=hello("somebody else")))
        await client.tell(pb.ConnectRequest())
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert [member.name for member in host.coordinator.parts.fleet.members()] == ["chatty"]


async def test_columns_of_unequal_length_and_absurd_step_numbers_are_survived(host: Inside) -> None:
    async def confuse(client: RawClient, assignment: pb.Assignment) -> None:
        uneven = pb.StepReport(ref=assignment.ref, loss=[1.0, 2.0, 3.0], samples=[5], step_ms=[1.0, 1.0])
        await client.tell(pb.ConnectRequest(step_report=uneven))
        far = pb.StepReport(ref=assignment.ref, first_step=2**32 - 1, loss=[1.0], samples=[5], step_ms=[1.0])
        await client.tell(pb.ConnectRequest(step_report=far))
        await client.push(assignment.ref)

    async with raw_client(host.address, "confused", confuse):
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    steps = [a.steps for a in await host.assignments("s") if a.work == "train" and a.steps]
    assert all(len(s.loss) == len(s.samples) == len(s.step_ms) <= 3 for s in steps)


async def test_a_client_that_reads_nothing_is_cut_off_and_may_come_back(host: Inside) -> None:
    async with raw_client(host.address, "deaf") as client:
        fleet = host.coordinator.parts.fleet
        (member,) = fleet.members()
        # More than its outbox holds, before its stream has had a chance to take any of it off.
        for number in range(OUTBOX_MESSAGES + 1):
            fleet.send(member, pb.ConnectResponse(notice=pb.Notice(text=str(number))))
        await until(lambda: client._call.done(), "its stream is ended")
    async with raw_client(host.address, "deaf") as client:
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        assert client.notices == []


async def test_layouts_are_told_apart(host: Inside) -> None:
    other = layout(weight=(2, 4), bias=(3,))
    async with raw_client(host.address, "other", model=other) as client:
        await host.create(spec(round={"wait_for_clients": "0s"}))
        await until(lambda: client.notices, "it is told why it gets no work")
    assert "bias" in client.notices[0]
    assert MANIFEST.to_proto() != other
