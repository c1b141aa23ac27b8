"""Transfers that are cut go on where they stopped, at any size."""

import asyncio
import hashlib
import mmap
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import torch
import xxhash
from e2e.inside import Inside, inside
from e2e.raw import RawClient, do_nothing, raw_client
from e2e.studies import spec
from e2e.tiny import Tiny
from e2e.waiting import until, until_true
from torch import nn

from fedstep.common import wire
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.tensors import Manifest, as_bytes
from fedstep.server.coordination.shelf import ShelvedModel
from fedstep.server.coordination.transfers import Upload
from fedstep.server.storage.base import StudyState
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1 import tensors_pb2

SMALL_CHUNK = 256
CHUNKS = 2503
"""More than the 2,048 that 2 GiB make, cut as always; here of 256 bytes each instead of a MiB."""


class Wide(Tiny):
    """As many small chunks as 2 GiB have large ones."""

    name = "wide"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(1000, 160)


LAYOUT = Manifest.of(nn.Linear(1000, 160).state_dict())


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    monkeypatch.setattr(wire, "CHUNK_BYTES", SMALL_CHUNK)
    async with inside(tmp_path, tasks=[Wide()]) as running:
        yield running


async def asked_to_train(client: RawClient) -> pb.Assignment:
    await until(client.trainings, "it is asked to train")
    return client.trainings()[0]


def wide_client(host: Inside) -> AbstractAsyncContextManager[RawClient]:
    return raw_client(host.address, "wide", do_nothing, task="wide", model=LAYOUT.to_proto())


def one_round() -> StudySpec:
    return spec(task="wide", round={"deadline": "60s"}, budget={"rounds_per_trial": 1})


async def test_a_model_is_fetched_from_any_byte_on(host: Inside) -> None:
    async with wide_client(host) as client:
        await host.create(one_round())
        assignment = await asked_to_train(client)
        header, whole = await client.fetch(assignment.model_sha256)
        assert len(whole) == LAYOUT.payload_bytes == header.manifest.payload_bytes
        assert -(-len(whole) // SMALL_CHUNK) == CHUNKS
        assert hashlib.sha256(whole).digest() == assignment.model_sha256 == header.sha256
        around = [SMALL_CHUNK * chunk + extra for chunk in (1, 1000, CHUNKS - 1) for extra in (-1, 0, 1)]
        for offset in (0, 1, *around, len(whole) - 1, len(whole)):
            header, rest = await client.fetch(assignment.model_sha256, offset)
            assert header.offset == offset
            assert rest == whole[offset:], offset


async def test_an_update_that_was_cut_goes_on_from_the_byte_the_coordinator_names(host: Inside) -> None:
    update = bytes(as_bytes(torch.linspace(-0.01, 0.01, LAYOUT.elements)))
    chunks = [update[start : start + SMALL_CHUNK] for start in range(0, len(update), SMALL_CHUNK)]
    checksum = xxhash.xxh3_128_digest(update)
    async with wide_client(host) as client:
        await host.create(one_round())
        assignment = await asked_to_train(client)
        _, before = await client.fetch(assignment.model_sha256)
        ref = assignment.ref
        header = pb.UpdateHeader(
            session_id=client.session_id, ref=ref, checksum=checksum, payload_bytes=len(update), summary=summary()
        )

        async def half_and_then_silence() -> AsyncIterator[bytes]:
            yield pb.PushUpdateRequest(header=header).SerializeToString()
            for chunk in chunks[: CHUNKS // 2]:
                yield wire.frame(chunk)
            await asyncio.Event().wait()

        cut = asyncio.create_task(client.send(half_and_then_silence()))

        async def held() -> int:
            answer = await client.push(ref, update, chunks=[])
            assert not answer.accepted
            return answer.received_bytes

        arrived = SMALL_CHUNK * (CHUNKS // 2)

        async def all_there() -> bool:
            return await held() == arrived

        await until_true(all_there, "what was sent has arrived")
        cut.cancel()
        # Half a chunk more, in an order that ends inside of one; then another cut, in good order.
        answer = await until_taken(client, ref, update, arrived, arrived + 100, chunk=100)
        assert (answer.received_bytes, answer.accepted) == (arrived + 100, False)
        assert await held() == arrived + 100
        # From anywhere else it is refused, and nothing is lost by it.
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.push(ref, update, offset=arrived + 200, chunks=[update[arrived + 200 :]])
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        answer = await client.push(
            ref, update, offset=arrived + 100, chunks=pieces(update[arrived + 100 :], 1000), summary=summary()
        )
        assert (answer.received_bytes, answer.accepted) == (len(update), True)
        record = await host.until_over("s")
        assert record.state is StudyState.COMPLETED
        assert record.result is not None
        after = host.coordinator.parts.blobs.get(record.result.model_sha256).view(torch.float32)
    assert host.faults("wide") == 0
    # Every byte of the update came to its place: with one client and server_lr 1 it is what the model moved by.
    moved = after - torch.frombuffer(bytearray(before), dtype=torch.float32)
    torch.testing.assert_close(moved, torch.frombuffer(bytearray(update), dtype=torch.float32), rtol=0, atol=1e-6)


async def until_taken(
    client: RawClient, ref: pb.AssignmentRef, update: bytes, start: int, end: int, chunk: int
) -> pb.PushUpdateResponse:
    """Pushes a part; the call that was cut a moment ago may still hold the update."""

    async def push() -> pb.PushUpdateResponse | None:
        try:
            return await client.push(ref, update, offset=start, chunks=pieces(update[start:end], chunk))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return None
            raise

    answer = await until_true(push, "the update is no longer held by the call that was cut")
    assert answer is not None
    return answer


async def test_an_update_begun_anew_with_other_bytes_forgets_the_old_ones(host: Inside) -> None:
    old = bytes(as_bytes(torch.full((LAYOUT.elements,), 1.0)))
    new = bytes(as_bytes(torch.full((LAYOUT.elements,), 0.01)))
    async with wide_client(host) as client:
        await host.create(one_round())
        ref = (await asked_to_train(client)).ref
        answer = await client.push(ref, old, chunks=[old[:1000]])
        assert answer.received_bytes == 1000
        assert (await client.push(ref, new, chunks=[])).received_bytes == 0
        assert (await client.push(ref, new, chunks=pieces(new, 1000), summary=summary())).accepted
        assert (await host.until_over("s")).state is StudyState.COMPLETED


def test_an_upload_crosses_four_gibibytes_without_losing_its_place() -> None:
    """Proves the arithmetic, not the speed: the buffer is 5 GiB of address space, of which three pages are touched."""
    size, near = 5 << 30, (1 << 32) - 100
    with_room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    upload = Upload(torch.frombuffer(with_room, dtype=torch.uint8), b"")
    upload.received = near  # as an earlier connection left it
    upload.write(memoryview(b"a" * 100))
    upload.write(memoryview(b"b" * 100))
    assert upload.received == (1 << 32) + 100
    assert with_room[near - 1 : near + 201] == b"\0" + b"a" * 100 + b"b" * 100 + b"\0"
    assert upload.update().shape == (size // 4,)
    upload.received = size - 10
    with pytest.raises(InvalidInputError, match="announced"):
        upload.write(memoryview(b"c" * 11))
    upload.write(memoryview(b"c" * 10))
    assert upload.received == size
    assert with_room[size - 10 :] == b"c" * 10


async def test_a_model_beyond_four_gibibytes_is_fetched_from_there_on(tmp_path: Path) -> None:
    """Over real gRPC: every chunk of the model is the same megabyte, so that it takes no more memory than one."""
    chunks = (1 << 12) + 3
    size = chunks * wire.CHUNK_BYTES
    chunk = bytes(range(256)) * (wire.CHUNK_BYTES // 256)
    layout = tensors_pb2.TensorManifest(
        tensors=[tensors_pb2.TensorSpec(name="w", shape=[size // 4], data_type=tensors_pb2.DATA_TYPE_FLOAT32)],
        payload_bytes=size,
    )
    sha256 = b"s" * 32
    model = ShelvedModel(Manifest.from_proto(layout), sha256, b"c" * 16, (wire.frame(chunk),) * chunks)
    async with inside(tmp_path) as host, raw_client(host.address) as client:
        host.coordinator.parts.shelf._models[sha256] = model
        for offset in ((1 << 32) - 1, 1 << 32, (1 << 32) + 12345, size - 1, size):
            header, rest = await client.fetch(sha256, offset)
            assert (header.offset, header.manifest.payload_bytes) == (offset, size)
            first = offset % wire.CHUNK_BYTES
            assert len(rest) == size - offset
            assert rest[: wire.CHUNK_BYTES - first] == (chunk[first:] if rest else b"")
            assert hashlib.sha256(rest).digest() == hashlib.sha256((chunk * 4)[-len(rest) :] if rest else b"").digest()


def summary() -> pb.TrainingSummary:
    return pb.TrainingSummary(samples=10, steps=1, loss=0.5)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
