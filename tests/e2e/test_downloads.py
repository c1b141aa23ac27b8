"""Models on their way to an operator: whole, verified, and in pieces where the connection is cut."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import torch
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import Tiny, TinyWork, tiny_agent
from e2e.waiting import until
from faults.proxy import proxy
from safetensors.torch import load_file
from torch import nn
from unit.full_disk import full_disk

from fedstep.api import connect as blocking_connect
from fedstep.api.aio import connect
from fedstep.api.model_file import ModelFile
from fedstep.common import wire
from fedstep.common.errors import DataLossError, InvalidInputError, NotFoundError, PreconditionError, StorageError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.tensors import Manifest, as_bytes, pack, sha256
from fedstep.server.storage.base import Change
from fedstep.v1 import study_pb2, study_pb2_grpc

CHUNK = 1024


class Mixed(nn.Module):
    """Tensors of several types, whose sizes are no multiple of one another's alignment."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("halves", torch.arange(5, dtype=torch.bfloat16))
        self.register_buffer("wide", torch.arange(1_000_000, dtype=torch.float64).reshape(1000, 1000))


class MixedTask(Tiny):
    """Has no client: a test puts its model where a study's would be."""

    name = "mixed"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return Mixed()


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inside]:
    monkeypatch.setattr(wire, "CHUNK_BYTES", CHUNK)
    async with inside(tmp_path / "coordinator") as running:
        yield running


async def finished(host: Inside, name: str = "s") -> bytes:
    """A study that is over; answers with its model's digest."""
    async with tiny_agent(host.address, "ann"):
        await host.create(spec(name=name))
        record = await host.until_over(name)
    assert record.result is not None
    return record.result.model_sha256


async def parts(host: Inside, request: study_pb2.DownloadModelRequest) -> tuple[study_pb2.ModelPart, bytes]:
    async with grpc.aio.insecure_channel(host.address) as channel:
        call = study_pb2_grpc.StudyServiceStub(channel).DownloadModel(request, timeout=20)
        found = [part async for part in call]
    assert [part.WhichOneof("part") for part in found[1:]] == ["chunk"] * (len(found) - 1)
    assert all(len(part.chunk) <= CHUNK for part in found[1:])
    return found[0].header, b"".join(part.chunk for part in found[1:])


async def test_the_final_model_comes_whole_and_from_any_byte_on(host: Inside) -> None:
    digest = await finished(host)
    header, payload = await parts(host, study_pb2.DownloadModelRequest(study="s"))
    assert header.sha256 == digest == hashlib.sha256(payload).digest()
    assert header.manifest.payload_bytes == len(payload) == 40
    assert [tensor.name for tensor in header.manifest.tensors] == ["weight", "bias"]
    for offset in (0, 1, 39, 40):
        header, rest = await parts(host, study_pb2.DownloadModelRequest(sha256=digest, offset=offset))
        assert (header.offset, rest) == (offset, payload[offset:])


async def test_it_is_the_file_that_the_coordinator_wrote(host: Inside, tmp_path: Path) -> None:
    digest = await finished(host)
    async with connect(host.address) as fedstep:
        found = await fedstep.download(tmp_path / "model.safetensors", "s")
        model_path = (await fedstep.get("s")).result.model_path
    assert (found.sha256, found.payload_bytes, found.tensors) == (digest.hex(), 40, 2)
    ours, theirs = load_file(found.path), load_file(model_path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sorted(os.listdir(tmp_path)) == ["coordinator", "model.safetensors"]


async def test_a_running_study_has_its_best_model_so_far(host: Inside, tmp_path: Path) -> None:
    work = TinyWork()
    async with tiny_agent(host.address, "ann", work), connect(host.address) as fedstep:
        work.gate.clear()
        await fedstep.create(spec_to_proto(spec(budget={"trials": 1, "rounds_per_trial": 3})))
        await until(lambda: work.begun, "the first round is under way")
        with pytest.raises(PreconditionError, match="Study s has no model yet"):
            await fedstep.download(tmp_path / "model.safetensors", "s")
        assert os.listdir(tmp_path) == ["coordinator"]
        work.gate.set()
        await host.until_event("s", "round_committed")
        work.gate.clear()
        found = await fedstep.download(tmp_path / "model.safetensors", "s")
        assert bytes.fromhex(found.sha256) in {round_.model_sha256 for round_ in await host.rounds("s")}
        work.gate.set()


async def test_a_model_that_no_study_has_is_for_nobody(host: Inside, tmp_path: Path) -> None:
    digest, other = await finished(host), await finished(host, "other")
    secret = b"moments of a server optimizer"
    host.coordinator.parts.blobs.put(secret, hashlib.sha256(secret).digest())
    async with connect(host.address) as fedstep:
        with pytest.raises(NotFoundError, match="No study here has a model"):
            await fedstep.download(tmp_path / "m", "", hashlib.sha256(secret).digest())
        with pytest.raises(NotFoundError, match="Study other has no model 00000000"):
            await fedstep.download(tmp_path / "m", "other", bytes(32))
        with pytest.raises(NotFoundError, match="nobody"):
            await fedstep.download(tmp_path / "m", "nobody")
        assert (await fedstep.download(tmp_path / "m", "s", digest)).sha256 == digest.hex()
        assert (await fedstep.download(tmp_path / "m", "", other)).sha256 == other.hex()
        host.coordinator.parts.blobs.path(digest).write_bytes(bytes(40))
        with pytest.raises(DataLossError, match="damaged"):
            await fedstep.download(tmp_path / "n", "s")
        host.coordinator.parts.blobs.path(digest).unlink()
        with pytest.raises(NotFoundError, match="not kept any more"):
            await fedstep.download(tmp_path / "n", "s")
    assert not (tmp_path / "n").exists()


async def test_bad_requests_name_their_field(host: Inside) -> None:
    digest = await finished(host)
    for field, request in (
        ("study", study_pb2.DownloadModelRequest()),
        ("sha256", study_pb2.DownloadModelRequest(study="s", sha256=b"short")),
        ("offset", study_pb2.DownloadModelRequest(sha256=digest, offset=41)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await parts(host, request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"{field}: " in str(refused.value.details())


async def test_every_type_of_tensor_comes_over_a_connection_that_is_cut(tmp_path: Path) -> None:
    """The relay ends the connection three times on the way; each call goes on where the one before was cut."""
    task = MixedTask()
    async with inside(tmp_path / "coordinator", tasks=[task]) as host, proxy(host.address) as between:
        digest = await finished(host)
        # The study's model is another one now: larger, and of many types.
        state = Mixed().state_dict()
        manifest = Manifest.of(state)
        payload = pack(state, manifest)
        large = sha256(payload)
        host.coordinator.parts.blobs.put(as_bytes(payload), large, manifest)
        await host.coordinator.parts.executors.storage.run(_swap_model, host, digest, large)
        cuts: list[int] = []

        def cut(received: int, size: int) -> None:
            if received * 4 > size * (len(cuts) + 1) and len(cuts) < 3:
                cuts.append(received)
                between.cut()

        async with connect(between.address) as fedstep:
            found = await fedstep.download(tmp_path / "model.safetensors", "s", on_bytes=cut)
    assert len(cuts) == 3
    assert found.sha256 == large.hex()
    read = load_file(found.path)
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].dtype is tensor.dtype, name
        assert torch.equal(read[name], tensor), name


def _swap_model(host: Inside, before: bytes, after: bytes) -> None:
    store = host.coordinator.parts.store
    result = store.study("s").result
    assert result is not None
    assert result.model_sha256 == before
    store.commit("s", Change(result=replace(result, model_sha256=after)))


async def test_a_download_that_its_caller_cancels_leaves_its_place_to_the_next(host: Inside) -> None:
    digest = await finished(host)
    request = study_pb2.DownloadModelRequest(sha256=digest)
    async with grpc.aio.insecure_channel(host.address) as channel:
        stub: study_pb2_grpc.StudyServiceAsyncStub = study_pb2_grpc.StudyServiceStub(channel)
        for _ in range(20):
            call = stub.DownloadModel(request)
            await call.read()
            call.cancel()
        await parts(host, request)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    link, payload = tmp_path / "latest", bytes(8)
    link.symlink_to("models/model.safetensors")
    with ModelFile(link, "s") as file:
        file.take(study_pb2.DownloadModelResponse(header=_part(payload, hashlib.sha256(payload).digest())))
        file.take(study_pb2.DownloadModelResponse(chunk=payload))
        assert file.finish() is not None
    assert link.is_symlink()
    assert [path.name for path in tmp_path.rglob("*.*")] == ["model.safetensors"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no/model\.safetensors cannot be written \(no such file or directory\)"):
        ModelFile(tmp_path / "no" / "model.safetensors", "s").__enter__()


@pytest.mark.parametrize("size", [100, 100_000])
def test_on_a_full_disk_it_says_so_and_leaves_no_file(tmp_path: Path, size: int) -> None:
    path, payload = tmp_path / "model.safetensors", bytes(size)

    def download() -> None:
        with ModelFile(path, "s") as file:
            file.take(study_pb2.DownloadModelResponse(header=_part(payload, hashlib.sha256(payload).digest())))
            file.take(study_pb2.DownloadModelResponse(chunk=payload))
            file.finish()

    with full_disk(), pytest.raises(StorageError, match=r"model\.safetensors cannot be written \(.*\): give another"):
        download()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [".", "..", "/", "", "pipe", "link"])
def test_what_is_no_ordinary_file_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("pipe", "link")

    async def on_a_loop() -> None:
        async with connect("127.0.0.1:1") as fedstep:
            await fedstep.download(path, "s")

    for download in (lambda: blocking_connect("127.0.0.1:1").download(path, "s"), lambda: asyncio.run(on_a_loop())):
        with pytest.raises(InvalidInputError, match=f"^{path or '.'} is no ordinary file: name another one"):
            download()
    assert sorted(os.listdir()) == ["link", "pipe"]


def _part(payload: bytes, digest: bytes) -> study_pb2.ModelPart:
    part = study_pb2.ModelPart(sha256=digest)
    part.manifest.payload_bytes = len(payload)
    part.manifest.tensors.add(name="weight", shape=[len(payload)], data_type=9)
    return part


def test_what_is_not_the_model_is_not_kept(tmp_path: Path) -> None:
    with ModelFile(tmp_path / "model", "s") as file:
        file.take(study_pb2.DownloadModelResponse(header=_part(b"abc", hashlib.sha256(b"abc").digest())))
        assert file.finish() is None
        file.take(study_pb2.DownloadModelResponse(chunk=b"abd"))
        with pytest.raises(DataLossError, match="Download it again"):
            file.finish()
        with pytest.raises(DataLossError, match="More bytes"):
            file.take(study_pb2.DownloadModelResponse(chunk=b"e"))
    assert not list(tmp_path.iterdir())


def test_of_an_unknown_type_nothing_is_written(tmp_path: Path) -> None:
    part = _part(b"abc", hashlib.sha256(b"abc").digest())
    part.manifest.tensors[0].data_type = 0
    with ModelFile(tmp_path / "model", "s") as file, pytest.raises(InvalidInputError, match="weight is of a type"):
        file.take(study_pb2.DownloadModelResponse(header=part))
