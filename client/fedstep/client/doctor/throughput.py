"""How fast models come and updates go: bytes both ways, for a few seconds at most."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass

import grpc.aio

from fedstep.client.doctor.checks import Found, SkipError
from fedstep.client.doctor.network import ProbeCall, put
from fedstep.common.channel import Endpoint, open_channel
from fedstep.common.errors import ExhaustedError, UnavailableError, from_rpc
from fedstep.common.tensors import Manifest
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub

MOST_BYTES = 32 << 20
_ENOUGH_S = 2.0
_CHUNK_BYTES = 256 << 10
_TIMEOUT_S = 40.0
_MB = 1e6


@dataclass(frozen=True)
class Rates:
    """What the way to a coordinator is worth.

    Attributes:
        there_and_back_s: For a small question and its answer.
        down_bytes_per_s: From the coordinator.
        up_bytes_per_s: To it.
    """

    there_and_back_s: float
    down_bytes_per_s: float
    up_bytes_per_s: float


async def measure(coordinator: Endpoint, model: Manifest | None) -> Found[Rates]:
    """Moves up to 32 MiB each way, for two seconds at most where the way is not too slow for one chunk.

    Args:
        coordinator: Whom to ask.
        model: The task's, for which to say how long it would take; None where there is none.

    Raises:
        SkipError: Others measure at this moment.
        UnavailableError: The connection broke, or moved next to nothing.
    """
    async with open_channel(str(coordinator), coordinator.security) as channel:
        stub = FleetServiceStub(channel)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                down = await _down(stub.Probe())
                there_and_back_s, up = await _up(stub.Probe())
        except TimeoutError:
            raise UnavailableError(
                f"Less than {MOST_BYTES / _MB:.0f} MB moved in {_TIMEOUT_S:g} s to {coordinator} and back: look for "
                "what else uses this line, or for a proxy that holds bytes back."
            ) from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() is ExhaustedError.code:
                raise SkipError(from_rpc(error, str(coordinator)).message) from error
            raise UnavailableError(
                f"The connection to {coordinator} broke while bytes were moved: look for a proxy on the way that ends "
                "long calls."
            ) from error
    rates = Rates(there_and_back_s, down, up)
    text = f"{_rate(down)} down, {_rate(up)} up, {there_and_back_s * 1e3:.1f} ms there and back"
    if model is not None:
        update_bytes = 4 * model.elements  # float32, whatever the model's own types
        text += f"; the model takes {model.payload_bytes / down:.2g} s, an update {update_bytes / up:.2g} s"
    return Found(rates, text)


async def _down(call: ProbeCall) -> float:
    """Bytes a second from the coordinator; what is left is called off once that is known."""
    try:
        await put(call, _question(MOST_BYTES))
        began, moved = time.perf_counter(), 0
        while moved < MOST_BYTES and (not moved or time.perf_counter() - began < _ENOUGH_S):
            response = await call.read()
            if not isinstance(response, pb.ProbeResponse) or not response.chunk:
                break
            moved += len(response.chunk)
        return _rate_of(moved, began)
    finally:
        call.cancel()


async def _up(call: ProbeCall) -> tuple[float, float]:
    """The seconds of a question and its answer, and bytes a second to the coordinator, which says how many it has."""
    try:
        asked = time.perf_counter()
        await put(call, _question(0))
        began, moved = time.perf_counter(), 0
        chunk = pb.ProbeRequest(chunk=os.urandom(_CHUNK_BYTES))
        with suppress(asyncio.InvalidStateError):  # it is over already: reading says why
            while moved < MOST_BYTES and (not moved or time.perf_counter() - began < _ENOUGH_S):
                await call.write(chunk)
                moved += _CHUNK_BYTES
            await call.done_writing()
        response = await call.read()
        received = response.receipt.received_bytes if isinstance(response, pb.ProbeResponse) else 0
        return began - asked, _rate_of(received, began)
    finally:
        call.cancel()


def _question(download_bytes: int) -> pb.ProbeRequest:
    return pb.ProbeRequest(question=pb.ProbeQuestion(download_bytes=download_bytes))


def _rate_of(moved: int, began: float) -> float:
    if not moved:
        raise asyncio.InvalidStateError("the call ended before its first byte")
    return moved / (time.perf_counter() - began)


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / _MB:.3g} MB/s"
