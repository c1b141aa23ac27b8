"""StudyService for programs with an event loop: typed errors, deadlines, and a watch that survives a restart.

It speaks in the protocol's own messages. `fedstep.api.connect` gives the same without an event loop, in plain values.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from fedstep.api import calls
from fedstep.api.calls import (
    CALL_TIMEOUT_S,
    DOWNLOAD_TRIES,
    ENDED,
    HISTORY_TIMEOUT_S,
    LONG_TIMEOUT_S,
    Call,
    Page,
    RpcErrors,
)
from fedstep.api.model_file import Downloaded, ModelFile
from fedstep.api.waiting import LONGEST_S, Patience
from fedstep.common.channel import open_channel
from fedstep.common.errors import UnavailableError
from fedstep.common.handshake import why_not
from fedstep.common.security import PLAIN, Security
from fedstep.v1 import progress_pb2, study_pb2, study_pb2_grpc

T = TypeVar("T")

QUIET_S = 0.3
"""After a study's latest event: so long without another one, and all have been told."""


class AsyncFedstep:
    """A coordinator, as a program that steers it sees it.

    Args:
        address: `HOST:PORT`.
        channel: To it.
        security: What the channel was opened with.
    """

    def __init__(self, address: str, channel: grpc.aio.Channel, security: Security = PLAIN) -> None:
        self.address = address
        self._security = security
        self._stub: study_pb2_grpc.StudyServiceAsyncStub = study_pb2_grpc.StudyServiceStub(channel)

    async def create(self, spec: study_pb2.StudySpec) -> study_pb2.Study:
        """Starts a study."""
        return await self._ask(calls.create(spec))

    async def get(self, name: str) -> study_pb2.Study:
        """A study as it stands."""
        return await self._ask(calls.get(name))

    async def pause(self, name: str) -> study_pb2.Study:
        """Has a study stand still after the rounds under way."""
        return await self._ask(calls.pause(name))

    async def resume(self, name: str) -> study_pb2.Study:
        """Goes on with a study that stands still, or is interrupted."""
        return await self._ask(calls.resume(name))

    async def stop(self, name: str) -> study_pb2.Study:
        """Ends a study after the rounds under way."""
        return await self._ask(calls.stop(name))

    async def participation(self, study: str) -> study_pb2.Participation:
        """Who has trained in a study so far and who has not."""
        return await self._ask(calls.participation(study))

    async def cost(self, study: str) -> study_pb2.Cost:
        """What a study has cost so far."""
        return await self._ask(calls.cost(study))

    async def studies(self) -> AsyncIterator[study_pb2.Study]:
        """All studies, by name."""
        async for study in self._every(calls.studies):
            yield study

    async def trials(self, study: str) -> AsyncIterator[study_pb2.Trial]:
        """All trials of a study, by number."""
        async for trial in self._every(lambda token: calls.trials(study, token)):
            yield trial

    async def clients(self) -> list[study_pb2.Client]:
        """Every client ever heard of."""
        return [client async for client in self._every(calls.clients)]

    async def drain(self, client: str) -> study_pb2.Client:
        """Has a client finish what it has, and be given nothing new."""
        return await self._ask(calls.drain(client))

    async def undrain(self, client: str) -> study_pb2.Client:
        """Gives a drained client work again."""
        return await self._ask(calls.undrain(client))

    async def steps(self, request: study_pb2.ListStepsRequest) -> AsyncIterator[study_pb2.ListStepsResponse]:
        """Local steps, one assignment at a time."""
        with self._errors():
            async for answer in self._stub.ListSteps(request, timeout=LONG_TIMEOUT_S):
                yield answer

    async def watch(
        self, name: str, on_lost: Callable[[UnavailableError], None] = lambda error: None, after: int = 0
    ) -> AsyncIterator[study_pb2.StudyEvent]:
        """A study's events until it ends or stands still. None is missed or doubled, whatever cuts the connection.

        Args:
            name: The study's.
            on_lost: Told once of every time that the coordinator is lost; it is waited for.
            after: Events with a greater number only.
        """
        patience = Patience()
        while True:
            call = self._stub.WatchStudy(calls.watch(name, after), timeout=LONG_TIMEOUT_S)
            try:
                with self._errors():
                    async for answer in call:
                        patience.came()
                        after = answer.event.number
                        yield answer.event
                if (await self.get(name)).state in ENDED:
                    return
                await asyncio.sleep(LONGEST_S)  # it has not ended and nothing happens to it: ask again later
            except UnavailableError as error:
                if call.done() and await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                if patience.fresh:
                    on_lost(error)
                await self.check()
                await asyncio.sleep(patience.next_s())
            finally:
                call.cancel()

    async def snapshots(self, name: str, interval_s: float = 0.5) -> AsyncIterator[progress_pb2.Snapshot]:
        """What goes on in a study now, until it is not run any more.

        Args:
            name: The study's.
            interval_s: How often a snapshot is wanted; 0.25 at least.
        """
        request = calls.request(progress_pb2.WatchProgressRequest, name=name)
        request.interval.FromTimedelta(timedelta(seconds=interval_s))
        call = self._stub.WatchProgress(request, timeout=LONG_TIMEOUT_S)
        try:
            with self._errors():
                async for answer in call:
                    yield answer.snapshot
        finally:
            call.cancel()

    async def past_events(self, study: study_pb2.Study) -> AsyncIterator[study_pb2.StudyEvent]:
        """What has happened in a study so far, whether it has ended or goes on.

        Args:
            study: As it stood when it was asked for; later events may come with the others.
        """
        name, newest = study.spec.name, study.update_time.ToDatetime()
        with self._errors():
            call = self._stub.WatchStudy(study_pb2.WatchStudyRequest(name=name), timeout=HISTORY_TIMEOUT_S)
            answers = aiter(call)
            patience_s = CALL_TIMEOUT_S
            try:
                while True:
                    async with asyncio.timeout(patience_s):
                        event = (await anext(answers)).event
                    # All that one commit brought has the same time, and comes at once.
                    patience_s = QUIET_S if event.time.ToDatetime() >= newest else CALL_TIMEOUT_S
                    yield event
            except (StopAsyncIteration, TimeoutError):
                return
            finally:
                call.cancel()

    async def download(
        self,
        path: str | Path,
        study: str = "",
        sha256: bytes = b"",
        on_bytes: Callable[[int, int], None] = lambda received, size: None,
    ) -> Downloaded:
        """A model as a safetensors file, verified. A download that is cut goes on where it was.

        Args:
            path: The file, which appears whole or not at all.
            study: Of which study: its final model, or its best so far.
            sha256: The model of that digest instead, of `study` or of any.
            on_bytes: Told of the bytes that are here, and of all that there are.

        Raises:
            DataLossError: What came is not what its digest says.
            UnavailableError: Nothing more comes.
        """
        patience = Patience(DOWNLOAD_TRIES)
        with ModelFile(path, study, sha256) as file:
            while (whole := await asyncio.to_thread(file.finish)) is None:
                call = self._stub.DownloadModel(file.request(), timeout=LONG_TIMEOUT_S)
                try:
                    with self._errors():
                        async for part in call:
                            patience.came()
                            await asyncio.to_thread(file.take, part)
                            on_bytes(file.received, file.size)
                except UnavailableError:
                    await self.check()
                    if patience.spent:
                        raise
                    await asyncio.sleep(patience.next_s())
                finally:
                    call.cancel()
            return whole

    async def check(self) -> None:
        """Raises where a call that nobody answered will never be answered: one side does not take the other.

        Raises:
            UntrustedError: The coordinator is not the one that was meant.
            UnauthenticatedError: It does not take this caller.
        """
        fault = await why_not(self.address, self._security)
        if fault is not None:
            raise fault

    async def _ask(self, call: Call[T]) -> T:
        method: Callable[..., Awaitable[object]] = getattr(self._stub, call.method)
        with self._errors():
            return call.pick(await method(call.request, timeout=call.timeout_s))

    async def _every(self, page: Callable[[str], Call[Page[T]]]) -> AsyncGenerator[T]:
        """What lies on all pages."""
        token = ""
        while True:
            items, token = await self._ask(page(token))
            for item in items:
                yield item
            if not token:
                return

    def _errors(self) -> RpcErrors:
        return RpcErrors(self.address)


@asynccontextmanager
async def connect(address: str, security: Security = PLAIN) -> AsyncGenerator[AsyncFedstep]:
    """A coordinator to steer; nothing is sent before the first call.

    Args:
        address: `HOST:PORT`.
        security: How it is known, and what is shown to it.
    """
    async with open_channel(address, security) as channel:
        fedstep = AsyncFedstep(address, channel, security)
        try:
            yield fedstep
        except UnavailableError:
            await fedstep.check()
            raise
