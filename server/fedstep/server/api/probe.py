"""Answers somebody who asks how things stand between a client's machine and this one; see `FleetService.Probe`."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fedstep.common.errors import ExhaustedError, InvalidInputError, UnavailableError
from fedstep.common.version import VERSION
from fedstep.server.api.access import check_name
from fedstep.server.api.handlers import Context
from fedstep.v1 import fleet_pb2 as pb

QUESTION_TIMEOUT_S = 10.0
MOST_BYTES = 64 << 20
MOST_CHUNK_BYTES = 1 << 20
LONGEST_S = 60.0
AT_ONCE = 2
"""How many measure at a time: they take the network's bandwidth from clients that train."""

_CHUNK_BYTES = 256 << 10


class Probe:
    """The method. It knows of no client and no study.

    Args:
        tasks: The names of those that may be run here.
        callers: How callers are known here.
    """

    def __init__(self, tasks: Sequence[str], callers: str) -> None:
        self._answer = pb.ProbeAnswer(version=VERSION, tasks=sorted(tasks), callers=callers)
        self._under_way = 0

    async def probe(self, requests: AsyncIterator[pb.ProbeRequest], context: Context) -> None:
        """One caller's question, its answer, and bytes both ways.

        Raises:
            InvalidInputError: It is no question, or asks for too much.
            ExhaustedError: Enough others move bytes at this moment.
            UnavailableError: It took too long.
        """
        try:
            async with asyncio.timeout(LONGEST_S):
                question = await _question(requests)
                if question.client_name:
                    check_name(context, question.client_name)
                await context.write(pb.ProbeResponse(answer=self._answer))
                if question.download_bytes:
                    with self._place():
                        for chunk in _chunks(question.download_bytes):
                            await context.write(pb.ProbeResponse(chunk=chunk))
                receipt = pb.ProbeReceipt(received_bytes=await self._received(requests))
                await context.write(pb.ProbeResponse(receipt=receipt))
        except TimeoutError:
            raise UnavailableError(f"The probe took longer than {LONGEST_S:g} s: ask for fewer bytes.") from None

    async def _received(self, requests: AsyncIterator[pb.ProbeRequest]) -> int:
        """How many bytes came until the caller closed its side."""
        received = 0
        with ExitStack() as place:
            async for request in requests:
                if not received:
                    place.enter_context(self._place())
                if not 0 < len(request.chunk) <= MOST_CHUNK_BYTES:
                    raise InvalidInputError(
                        f"A chunk of {len(request.chunk)} bytes; it must have 1 to {MOST_CHUNK_BYTES}."
                    )
                received += len(request.chunk)
                if received > MOST_BYTES:
                    raise InvalidInputError(f"A probe takes at most {MOST_BYTES} bytes: send no more.")
        return received

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= AT_ONCE:
            raise ExhaustedError(f"{AT_ONCE} others move bytes at this moment: try again in a minute.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


async def _question(requests: AsyncIterator[pb.ProbeRequest]) -> pb.ProbeQuestion:
    try:
        async with asyncio.timeout(QUESTION_TIMEOUT_S):
            first = await anext(aiter(requests))
    except (TimeoutError, StopAsyncIteration):
        first = pb.ProbeRequest()
    if first.WhichOneof("part") != "question":
        raise InvalidInputError(f"The first message of Probe must be a question, within {QUESTION_TIMEOUT_S:g} s.")
    if first.question.download_bytes > MOST_BYTES:
        raise InvalidInputError(
            f"A probe of {first.question.download_bytes} bytes; at most {MOST_BYTES} are sent, ask for no more."
        )
    return first.question


def _chunks(size: int) -> Iterator[bytes]:
    """So many bytes that nothing on the way can compress."""
    chunk = os.urandom(min(size, _CHUNK_BYTES))
    for start in range(0, size, _CHUNK_BYTES):
        yield chunk[: size - start]
