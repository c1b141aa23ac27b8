"""One session: a control stream from its hello to its end."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc.aio

from fedstep.client.link import Link, OpenLink
from fedstep.client.outbox import Outbox
from fedstep.client.work import Monotonic
from fedstep.common.channel import open_channel
from fedstep.common.durations import seconds_of
from fedstep.common.errors import FedstepError, UnavailableError, from_rpc
from fedstep.common.handshake import why_not
from fedstep.common.security import PLAIN, Security
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]"

_WELCOME_S = 10.0
_REASON_S = 1.0
_DEFAULT_HEARTBEAT_S = 5.0
_DEFAULT_REPORT_S = 0.5


class SessionHandler(Protocol):
    """Takes what the coordinator says. Called on the event loop; must not block."""

    def on_welcome(self, welcome: pb.Welcome) -> None:
        """The session has begun."""

    def on_assignment(self, assignment: pb.Assignment) -> None:
        """There is work."""

    def on_directive(self, directive: pb.Directive) -> None:
        """The plan for work under way has changed."""

    def on_notice(self, notice: pb.Notice) -> None:
        """There is something that the person here should read."""

    def on_drain(self, drain: pb.Drain) -> None:
        """The coordinator is going away."""


@dataclass(frozen=True)
class SessionEnd:
    """How a session ended.

    Attributes:
        welcomed: The coordinator had taken this client.
        error: Why it ended; None where the coordinator ended it in order.
    """

    welcomed: bool
    error: FedstepError | None


class Session:
    """Talks to a coordinator over two connections of its own, until either side ends it.

    Nothing is kept from one session to the next but what the outbox and the link hold.
    """

    def __init__(
        self,
        address: str,
        hello: Callable[[], pb.Hello],
        handler: SessionHandler,
        outbox: Outbox,
        link: Link,
        clock: Monotonic,
        security: Security = PLAIN,
    ) -> None:
        """Not connected yet.

        Args:
            address: `HOST:PORT`.
            hello: Makes the first message, when it is sent.
            handler: Takes what the coordinator says.
            outbox: What is to be told.
            link: Is opened for transfers while the session lasts.
            clock: Monotonic seconds.
            security: How the coordinator is known, and what is shown to it.
        """
        self._address = address
        self._security = security
        self._hello = hello
        self._handler = handler
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._welcomed = False
        self._call: _Call | None = None
        self._heard_all = asyncio.Event()

    @property
    def welcomed(self) -> bool:
        """Whether the coordinator has taken this client."""
        return self._welcomed

    async def part(self, wait_s: float) -> None:
        """Tells what is still to be told, and that there will be no more; does nothing where no session lasts.

        The coordinator then ends the stream: only so is it known to have read everything. A stream that is cancelled
        takes along what was written and not read.

        Args:
            wait_s: How long that may take.
        """
        if self._call is None or not self._welcomed or self._heard_all.is_set():
            return
        with contextlib.suppress(TimeoutError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
            async with asyncio.timeout(wait_s):
                await self._outbox.drained(wait_s)
                await self._call.done_writing()
                await self._heard_all.wait()

    async def run(self) -> SessionEnd:
        """The whole session. Connections are new each time: an old one waits longer and longer before it tries again.

        Never raises an error of the connection or of the coordinator: it is in the result.
        """
        async with (
            open_channel(self._address, self._security) as control,
            open_channel(self._address, self._security) as bulk,
        ):
            call = self._call = FleetServiceStub(control).Connect()
            try:
                await self._talk(call, bulk)
            except grpc.aio.AioRpcError as error:
                return SessionEnd(self._welcomed, await self._why(from_rpc(error, self._address)))
            except FedstepError as error:
                return SessionEnd(self._welcomed, error)
            finally:
                self._outbox.end()
                self._link.close()
                call.cancel()
                self._heard_all.set()
        return SessionEnd(self._welcomed, None)

    async def _why(self, error: FedstepError) -> FedstepError:
        """The error, or what is behind it where that is something which no other attempt will change."""
        if self._welcomed or not isinstance(error, UnavailableError):
            return error
        return await why_not(self._address, self._security) or error

    async def _talk(self, call: _Call, bulk: grpc.aio.Channel) -> None:
        try:
            async with asyncio.timeout(_WELCOME_S):
                await self._write(call, pb.ConnectRequest(hello=self._hello()))
                answer = await call.read()
        except TimeoutError:
            raise UnavailableError(f"{self._address} did not answer within {_WELCOME_S:g} s.") from None
        if not isinstance(answer, pb.ConnectResponse) or answer.WhichOneof("message") != "welcome":
            raise UnavailableError(f"{self._address} did not say welcome: is it a fedstep coordinator?")
        welcome = answer.welcome
        self._welcomed = True
        self._link.open(OpenLink(welcome.session_id, bulk, welcome.max_chunk_bytes, self._address))
        self._outbox.begin(welcome.report_max_steps)
        self._handler.on_welcome(welcome)
        listening = asyncio.create_task(self._listen(call), name="listen")
        telling = asyncio.create_task(self._tell(call, welcome), name="tell")
        try:
            await asyncio.wait({listening, telling}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({listening}, timeout=_REASON_S)  # what could not be told: why is heard here
        finally:
            # Ended first, so that neither task sees the call end under it.
            for task in (listening, telling):
                task.cancel()
            results = await asyncio.gather(listening, telling, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _listen(self, call: _Call) -> None:
        """Hands on what the coordinator says, until it ends the stream."""
        while isinstance(message := await call.read(), pb.ConnectResponse):
            match message.WhichOneof("message"):
                case "assignment":
                    self._handler.on_assignment(message.assignment)
                case "directive":
                    self._handler.on_directive(message.directive)
                case "notice":
                    self._handler.on_notice(message.notice)
                case "drain":
                    self._handler.on_drain(message.drain)
                    return
                case _:
                    pass

    async def _tell(self, call: _Call, welcome: pb.Welcome) -> None:
        """Heartbeats first, then what the outbox holds; until the stream has ended."""
        heartbeat_s = seconds_of(welcome.heartbeat_interval) or _DEFAULT_HEARTBEAT_S
        report_s = seconds_of(welcome.report_interval) or _DEFAULT_REPORT_S
        heartbeat_at = self._clock() + heartbeat_s
        report_at = self._clock() + report_s
        while True:
            wake_at = min(heartbeat_at, report_at) if self._outbox.reporting else heartbeat_at
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wake_at - self._clock())):
                    await self._outbox.changed.wait()
            self._outbox.changed.clear()
            now = self._clock()
            if now >= heartbeat_at:
                heartbeat_at = now + heartbeat_s
                if not await self._write(call, pb.ConnectRequest(heartbeat=pb.Heartbeat())):
                    return
            timely = now >= report_at
            if timely:
                report_at = now + report_s
            for message in self._outbox.due(timely):
                if not await self._write(call, message):
                    return
            self._outbox.written()

    async def _write(self, call: _Call, message: pb.ConnectRequest) -> bool:
        """Whether it was written. Where the stream has ended, only reading from it says why."""
        try:
            await call.write(message)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            return False
        return True
