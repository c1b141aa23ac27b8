"""StudyService as the commands call it: typed errors, deadlines, and a watch that survives a restart."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from fedstep.common.channel import open_channel
from fedstep.common.errors import UnavailableError, from_rpc
from fedstep.common.handshake import why_not
from fedstep.common.security import PLAIN, Security
from fedstep.v1 import study_pb2, study_pb2_grpc

CALL_TIMEOUT_S = 15.0
RETRY_CAP_S = 3.0
HISTORY_TIMEOUT_S = 300.0
QUIET_S = 0.3
"""After a study's latest event: so long without another one, and all have been told."""
ENDED = frozenset(
    {
        study_pb2.STUDY_STATE_COMPLETED,
        study_pb2.STUDY_STATE_STOPPED,
        study_pb2.STUDY_STATE_FAILED,
        study_pb2.STUDY_STATE_INTERRUPTED,
    }
)


class Remote:
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
        request = study_pb2.CreateStudyRequest(spec=spec)
        with self._errors():
            return (await self._stub.CreateStudy(request, timeout=CALL_TIMEOUT_S)).study

    async def get(self, name: str) -> study_pb2.Study:
        """A study as it stands."""
        with self._errors():
            return (await self._stub.GetStudy(study_pb2.GetStudyRequest(name=name), timeout=CALL_TIMEOUT_S)).study

    async def stop(self, name: str) -> study_pb2.Study:
        """Ends a study after the rounds under way."""
        with self._errors():
            return (await self._stub.StopStudy(study_pb2.StopStudyRequest(name=name), timeout=CALL_TIMEOUT_S)).study

    async def participation(self, study: str) -> study_pb2.Participation:
        """Who has trained in a study so far and who has not."""
        request = study_pb2.GetParticipationRequest(name=study)
        with self._errors():
            return (await self._stub.GetParticipation(request, timeout=HISTORY_TIMEOUT_S)).participation

    async def cost(self, study: str) -> study_pb2.Cost:
        """What a study has cost so far."""
        with self._errors():
            return (await self._stub.GetCost(study_pb2.GetCostRequest(name=study), timeout=HISTORY_TIMEOUT_S)).cost

    async def studies(self) -> AsyncIterator[study_pb2.Study]:
        """All studies, by name."""
        token = ""
        while True:
            with self._errors():
                request = study_pb2.ListStudiesRequest(page_token=token)
                page = await self._stub.ListStudies(request, timeout=CALL_TIMEOUT_S)
            for study in page.studies:
                yield study
            token = page.next_page_token
            if not token:
                return

    async def trials(self, study: str) -> AsyncIterator[study_pb2.Trial]:
        """All trials of a study, by number."""
        token = ""
        while True:
            with self._errors():
                request = study_pb2.ListTrialsRequest(study=study, page_token=token)
                page = await self._stub.ListTrials(request, timeout=CALL_TIMEOUT_S)
            for trial in page.trials:
                yield trial
            token = page.next_page_token
            if not token:
                return

    async def steps(self, request: study_pb2.ListStepsRequest) -> AsyncIterator[study_pb2.ListStepsResponse]:
        """Local steps, one assignment at a time."""
        with self._errors():
            async for answer in self._stub.ListSteps(request):
                yield answer

    async def clients(self) -> list[study_pb2.Client]:
        """Every client ever heard of."""
        with self._errors():
            answer = await self._stub.ListClients(study_pb2.ListClientsRequest(), timeout=CALL_TIMEOUT_S)
        return list(answer.clients)

    async def watch(
        self, name: str, on_lost: Callable[[UnavailableError], None], after: int = 0
    ) -> AsyncIterator[study_pb2.StudyEvent]:
        """A study's events until it ends. A coordinator that goes away is waited for; none is missed or doubled."""
        delay_s = 0.0
        while True:
            try:
                with self._errors():
                    request = study_pb2.WatchStudyRequest(name=name, after_event=after)
                    async for answer in self._stub.WatchStudy(request):
                        delay_s = 0.0
                        after = answer.event.number
                        yield answer.event
                if (await self.get(name)).state in ENDED:
                    return
                await asyncio.sleep(RETRY_CAP_S)  # it has not ended and nothing happens to it: ask again later
            except UnavailableError as error:
                if not delay_s:
                    on_lost(error)
                await self.check()
                delay_s = min(RETRY_CAP_S, 2 * delay_s or 0.2)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))

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

    async def check(self) -> None:
        """Raises where a call that nobody answered will never be answered: one side does not take the other.

        Raises:
            UntrustedError: The coordinator is not the one that was meant.
            UnauthenticatedError: It does not take this caller.
        """
        fault = await why_not(self.address, self._security)
        if fault is not None:
            raise fault

    def _errors(self) -> "_Errors":
        return _Errors(self.address)


class _Errors:
    """Turns a failed call's error into ours."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            raise from_rpc(error, self._address) from None


@asynccontextmanager
async def connect(address: str, security: Security = PLAIN) -> AsyncGenerator[Remote]:
    """A coordinator to steer; nothing is sent before the first call.

    Args:
        address: `HOST:PORT`.
        security: How it is known, and what is shown to it.
    """
    async with open_channel(address, security) as channel:
        remote = Remote(address, channel, security)
        try:
            yield remote
        except UnavailableError:
            await remote.check()
            raise
