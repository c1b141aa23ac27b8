"""The question that joins nothing: what it answers, and that it is bounded."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from e2e.inside import inside
from e2e.pki import Pki

from fedstep.common.channel import open_channel
from fedstep.common.identity import Role
from fedstep.common.security import PLAIN, Security
from fedstep.common.version import VERSION
from fedstep.server.api import probe
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub


@asynccontextmanager
async def asked(address: str, security: Security = PLAIN, **question: Any) -> AsyncIterator[Any]:
    """A call whose question has been written."""
    async with open_channel(address, security) as channel:
        call = FleetServiceStub(channel).Probe(timeout=30)
        await call.write(pb.ProbeRequest(question=pb.ProbeQuestion(**question)))
        try:
            yield call
        finally:
            call.cancel()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """Why the call ends before its end."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    pytest.fail("it was not refused")


async def test_it_answers_sends_and_receives(tmp_path: Path) -> None:
    size = 3 * (256 << 10) + 17
    async with inside(tmp_path) as host:
        async with asked(host.address, client_name="ann", download_bytes=size) as call:
            answer = (await call.read()).answer
            assert (answer.version, list(answer.tasks), answer.callers) == (VERSION, ["tiny"], "open")
            came = 0
            while came < size:
                came += len((await call.read()).chunk)
            assert came == size
            for length in (1, 1 << 20, 5):
                await call.write(pb.ProbeRequest(chunk=bytes(length)))
            await call.done_writing()
            assert (await call.read()).receipt.received_bytes == (1 << 20) + 6
            assert await call.read() is grpc.aio.EOF
        assert not host.coordinator.parts.fleet.records()  # nobody has joined


async def test_what_is_asked_and_sent_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with inside(tmp_path) as host:
        async with asked(host.address, download_bytes=probe.MOST_BYTES + 1) as call:
            assert (await refused(call)).code() is grpc.StatusCode.INVALID_ARGUMENT
        async with asked(host.address) as call:
            await call.write(pb.ProbeRequest(chunk=bytes((1 << 20) + 1)))
            assert "must have 1 to 1048576" in str((await refused(call)).details())
        monkeypatch.setattr(probe, "MOST_BYTES", 1000)
        async with asked(host.address) as call:
            for _ in range(2):
                await call.write(pb.ProbeRequest(chunk=bytes(600)))
            assert "takes at most 1000 bytes" in str((await refused(call)).details())


async def test_anything_but_a_question_is_refused(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, open_channel(host.address) as channel:
        call = FleetServiceStub(channel).Probe(timeout=30)
        await call.write(pb.ProbeRequest(chunk=b"x"))
        assert (await refused(call)).code() is grpc.StatusCode.INVALID_ARGUMENT
        call = FleetServiceStub(channel).Probe(timeout=30)
        await call.done_writing()
        assert (await refused(call)).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_two_at_a_time_and_a_place_is_free_again_once_a_caller_is_gone(tmp_path: Path) -> None:
    async with inside(tmp_path) as host:
        much = probe.MOST_BYTES  # more than is sent to one who does not read
        async with asked(host.address, download_bytes=much) as one, asked(host.address, download_bytes=much) as two:
            for call in (one, two):
                assert (await call.read()).answer.version
                assert (await call.read()).chunk
            async with asked(host.address, download_bytes=1) as three:
                assert (await refused(three)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            async with asked(host.address) as four:
                assert (await four.read()).answer.version  # who moves nothing is answered all the same
                await four.write(pb.ProbeRequest(chunk=b"x"))
                assert (await refused(four)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        async def answered() -> bool:
            async with asked(host.address, download_bytes=1) as call:
                try:
                    await call.read()
                    return bool((await call.read()).chunk)
                except grpc.aio.AioRpcError:
                    return False

        found = False
        while not found:  # the other side learns a moment later that they are gone
            found = await answered()


async def test_a_name_that_is_anothers_is_refused(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    async with inside(tmp_path, protection=pki.protection()) as host:
        ann = pki.caller(Role.CLIENT, "ann")
        async with asked(host.address, ann, client_name="ann") as call:
            assert (await call.read()).answer.callers == "certificates"
        async with asked(host.address, ann, client_name="bob") as call:
            error = await refused(call)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "--name ann" in str(error.details())


async def test_one_who_asks_for_too_long_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LONGEST_S", 0.2)
    async with inside(tmp_path) as host, asked(host.address) as call:
        error = await refused(call)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "longer than 0.2 s" in str(error.details())
