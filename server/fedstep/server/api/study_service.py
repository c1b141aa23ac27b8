"""StudyService: studies for people and programs."""

from bisect import bisect_right
from collections.abc import AsyncIterator

from sqlalchemy import make_url

from fedstep.common import wire
from fedstep.common.durations import seconds_of
from fedstep.common.errors import FieldViolation, InvalidInputError, UnavailableError
from fedstep.common.spec_proto import spec_from_proto
from fedstep.common.tensors import as_bytes
from fedstep.server.api import convert
from fedstep.server.api.convert_cost import cost_to_proto
from fedstep.server.api.handlers import Context
from fedstep.server.api.pages import page_size
from fedstep.server.api.progress import ProgressFeed
from fedstep.server.coordination.downloads import find_model
from fedstep.server.coordination.fleet import Member
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.reading import in_parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.coordination.transfers import Slots
from fedstep.server.storage.base import Event
from fedstep.server.storage.faults import where
from fedstep.v1 import progress_pb2, study_pb2, study_pb2_grpc

STEPS_AT_ONCE = 50
"""Assignments whose steps are read at once."""
MAX_DOWNLOADS = 4
"""Models that are read for operators at the same time, each of them in memory; whoever comes later waits."""
LATEST_EVENTS = 100
"""Events whose messages are kept for the next watcher."""

_TOKEN_DIGITS = 10

_LAST_EVENT = 2**63 - 1
"""No event has a greater number: the databases have none."""


class StudyService(study_pb2_grpc.StudyServiceServicer):
    """The servicer.

    Args:
        studies: The coordinator's studies.
        parts: For events, steps and clients.
    """

    def __init__(self, studies: Studies, parts: Parts) -> None:
        self._studies = studies
        self._parts = parts
        self._progress = ProgressFeed(studies, parts)
        self._downloads = Slots(MAX_DOWNLOADS, MAX_DOWNLOADS)
        self._latest: dict[int, study_pb2.WatchStudyResponse] = {}

    async def CreateStudy(  # noqa: N802
        self, request: study_pb2.CreateStudyRequest, context: Context
    ) -> study_pb2.CreateStudyResponse:
        """Starts a study."""
        record = await self._studies.create(spec_from_proto(request.spec))
        return study_pb2.CreateStudyResponse(study=await self._study(record.spec.name))

    async def GetStudy(  # noqa: N802
        self, request: study_pb2.GetStudyRequest, context: Context
    ) -> study_pb2.GetStudyResponse:
        """A study as it stands."""
        return study_pb2.GetStudyResponse(study=await self._study(request.name))

    async def ListStudies(  # noqa: N802
        self, request: study_pb2.ListStudiesRequest, context: Context
    ) -> study_pb2.ListStudiesResponse:
        """Studies by name, a page at a time."""
        size = page_size(request.page_size)
        records = await self._studies.page(request.page_token, size)
        return study_pb2.ListStudiesResponse(
            studies=[await self._study(record.spec.name) for record in records],
            next_page_token=records[-1].spec.name if len(records) == size else "",
        )

    async def WatchStudy(  # noqa: N802
        self, request: study_pb2.WatchStudyRequest, context: Context
    ) -> AsyncIterator[study_pb2.WatchStudyResponse]:
        """Events from a number on, until the study ends."""
        await self._studies.record(request.name)
        ended = lambda: not self._studies.under_way(request.name)  # noqa: E731
        async for event in self._parts.feed.watch(request.name, min(request.after_event, _LAST_EVENT), ended):
            yield self._told(event)
        self._check_draining()

    def _check_draining(self) -> None:
        """What ends a watch is not a study's end where the coordinator goes away.

        Raises:
            UnavailableError: It does.
        """
        if self._studies.draining:
            raise UnavailableError("The coordinator is going away; ask it again when it is back.")

    def _told(self, event: Event) -> study_pb2.WatchStudyResponse:
        """An event as a message, made once for all who watch it happen."""
        answer = self._latest.get(event.number)
        if answer is None:
            answer = self._latest[event.number] = study_pb2.WatchStudyResponse(event=convert.event(event))
            if len(self._latest) > LATEST_EVENTS:
                del self._latest[next(iter(self._latest))]
        return answer

    async def WatchProgress(  # noqa: N802
        self, request: progress_pb2.WatchProgressRequest, context: Context
    ) -> AsyncIterator[progress_pb2.WatchProgressResponse]:
        """Snapshots, until the study is not run any more."""
        async for snapshot in self._progress.watch(request.name, seconds_of(request.interval)):
            yield progress_pb2.WatchProgressResponse(snapshot=snapshot)
        self._check_draining()

    async def PauseStudy(  # noqa: N802
        self, request: study_pb2.PauseStudyRequest, context: Context
    ) -> study_pb2.PauseStudyResponse:
        """Has a study stand still after the rounds under way."""
        await self._studies.pause(request.name)
        return study_pb2.PauseStudyResponse(study=await self._study(request.name))

    async def ResumeStudy(  # noqa: N802
        self, request: study_pb2.ResumeStudyRequest, context: Context
    ) -> study_pb2.ResumeStudyResponse:
        """Goes on with a study that stands still."""
        await self._studies.resume(request.name)
        return study_pb2.ResumeStudyResponse(study=await self._study(request.name))

    async def StopStudy(  # noqa: N802
        self, request: study_pb2.StopStudyRequest, context: Context
    ) -> study_pb2.StopStudyResponse:
        """Ends a study after the rounds under way."""
        await self._studies.stop(request.name)
        return study_pb2.StopStudyResponse(study=await self._study(request.name))

    async def ListTrials(  # noqa: N802
        self, request: study_pb2.ListTrialsRequest, context: Context
    ) -> study_pb2.ListTrialsResponse:
        """Trials by number, a page at a time."""
        size = page_size(request.page_size)
        after = _number(request.page_token)
        trials = await self._parts.executors.storage.run(self._parts.store.trials, request.study, after, size)
        return study_pb2.ListTrialsResponse(
            trials=[convert.trial(trial) for trial in trials],
            next_page_token=str(trials[-1].number) if len(trials) == size else "",
        )

    async def ListSteps(  # noqa: N802
        self, request: study_pb2.ListStepsRequest, context: Context
    ) -> AsyncIterator[study_pb2.ListStepsResponse]:
        """Local steps, one assignment a message."""
        storage = self._parts.executors.storage
        found = await storage.run(
            self._parts.store.assignments,
            request.study,
            request.trial if request.HasField("trial") else None,
            request.round if request.HasField("round") else None,
            request.client_name,
        )
        async for records in in_parts(storage, found, STEPS_AT_ONCE):
            for record in records:
                if record.steps is not None:
                    yield convert.steps(record)

    async def GetParticipation(  # noqa: N802
        self, request: study_pb2.GetParticipationRequest, context: Context
    ) -> study_pb2.GetParticipationResponse:
        """Who has trained so far and who has not."""
        shares = await self._studies.participation(request.name)
        return study_pb2.GetParticipationResponse(participation=convert.participation(shares))

    async def GetCost(  # noqa: N802
        self, request: study_pb2.GetCostRequest, context: Context
    ) -> study_pb2.GetCostResponse:
        """What a study has cost so far."""
        return study_pb2.GetCostResponse(cost=cost_to_proto(await self._studies.cost(request.name)))

    async def DownloadModel(  # type: ignore[override]  # noqa: N802  # gRPC takes coroutines that write as well
        self, request: study_pb2.DownloadModelRequest, context: Context
    ) -> None:
        """A model's header and its payload from an offset on; written, not yielded: a cut call leaves at once."""
        async with self._downloads.hold() as slot:
            model = await find_model(self._parts, request.study, request.sha256)
            size = model.manifest.payload_bytes
            if request.offset > size:
                text = f"the model has {size} bytes, there is nothing at {request.offset}."
                raise InvalidInputError(f"offset: {text}", [FieldViolation("offset", text)])
            part = study_pb2.ModelPart(manifest=model.manifest.to_proto(), sha256=model.sha256, offset=request.offset)
            await context.write(study_pb2.DownloadModelResponse(header=part))
            payload = as_bytes(model.payload)
            for start in range(request.offset, size, wire.CHUNK_BYTES):
                chunk = bytes(payload[start : start + wire.CHUNK_BYTES])
                await context.write(study_pb2.DownloadModelResponse(chunk=chunk))
                slot.progress()

    async def ListClients(  # noqa: N802
        self, request: study_pb2.ListClientsRequest, context: Context
    ) -> study_pb2.ListClientsResponse:
        """Every client ever heard of by name, a page at a time."""
        fleet, paces = self._parts.fleet, self._parts.paces
        size, records = page_size(request.page_size), fleet.records()
        first = bisect_right(records, request.page_token, key=lambda record: record.name)
        page = records[first : first + size]
        return study_pb2.ListClientsResponse(
            clients=[convert.client(record, fleet.find(record.name), paces.known(record.name)) for record in page],
            next_page_token=page[-1].name if first + size < len(records) else "",
        )

    async def DrainClient(  # noqa: N802
        self, request: study_pb2.DrainClientRequest, context: Context
    ) -> study_pb2.DrainClientResponse:
        """Has a client be given nothing new."""
        member = self._parts.fleet.drain_client(request.name, True)
        return study_pb2.DrainClientResponse(client=self._client(member))

    async def UndrainClient(  # noqa: N802
        self, request: study_pb2.UndrainClientRequest, context: Context
    ) -> study_pb2.UndrainClientResponse:
        """Gives a drained client work again."""
        member = self._parts.fleet.drain_client(request.name, False)
        return study_pb2.UndrainClientResponse(client=self._client(member))

    def _client(self, member: Member) -> study_pb2.Client:
        return convert.client(member.record(), member, self._parts.paces.known(member.name))

    async def _study(self, name: str) -> study_pb2.Study:
        return convert.study(await self._studies.view(name), where(make_url(self._parts.database_url)))


def _number(token: str) -> int:
    if token and not (token.isdecimal() and len(token) < _TOKEN_DIGITS):
        text = f"{token!r:.80} is no page token: use next_page_token of the page before, or leave it out."
        raise InvalidInputError(f"page_token: {text}", [FieldViolation("page_token", text)])
    return int(token) if token else -1
