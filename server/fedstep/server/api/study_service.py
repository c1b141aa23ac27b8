"""StudyService: studies for people and programs."""

import itertools
from collections.abc import AsyncIterator

from sqlalchemy import make_url

from fedstep.common.errors import FieldViolation, InvalidInputError, UnavailableError
from fedstep.common.spec_proto import spec_from_proto
from fedstep.server.api import convert
from fedstep.server.api.convert_cost import cost_to_proto
from fedstep.server.api.handlers import Context
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.storage.base import AssignmentRecord
from fedstep.server.storage.faults import where
from fedstep.v1 import study_pb2, study_pb2_grpc

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class StudyService(study_pb2_grpc.StudyServiceServicer):
    """The servicer.

    Args:
        studies: The coordinator's studies.
        parts: For events, steps and clients.
    """

    def __init__(self, studies: Studies, parts: Parts) -> None:
        self._studies = studies
        self._parts = parts

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
        size = _page_size(request.page_size)
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
        async for event in self._parts.feed.watch(request.name, request.after_event, ended):
            yield study_pb2.WatchStudyResponse(event=convert.event(event))
        if self._studies.draining:
            raise UnavailableError("The coordinator is going away; ask it again when it is back.")

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
        size = _page_size(request.page_size)
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

        def some() -> list[AssignmentRecord]:
            return list(itertools.islice(found, 50))

        while records := await storage.run(some):
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

    async def ListClients(  # noqa: N802
        self, request: study_pb2.ListClientsRequest, context: Context
    ) -> study_pb2.ListClientsResponse:
        """Every client ever heard of, by name."""
        fleet, paces = self._parts.fleet, self._parts.paces
        return study_pb2.ListClientsResponse(
            clients=[
                convert.client(record, fleet.find(record.name), paces.known(record.name)) for record in fleet.records()
            ]
        )

    async def _study(self, name: str) -> study_pb2.Study:
        return convert.study(await self._studies.view(name), where(make_url(self._parts.database_url)))


def _page_size(asked: int) -> int:
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _number(token: str) -> int:
    if token and not token.isdecimal():
        text = f"{token!r:.80} is no page token: use next_page_token of the page before, or leave it out."
        raise InvalidInputError(f"page_token: {text}", [FieldViolation("page_token", text)])
    return int(token) if token else -1
