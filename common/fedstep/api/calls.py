"""The calls of StudyService that have one answer, each once, for clients with and without an event loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from fedstep.common.errors import from_rpc
from fedstep.v1 import study_pb2 as pb

T = TypeVar("T")

CALL_TIMEOUT_S = 15.0
HISTORY_TIMEOUT_S = 300.0
LONG_TIMEOUT_S = 3600.0
"""The deadline of a call that streams. Whoever watches asks again then, from where it was."""
DOWNLOAD_TRIES = 20
"""Calls without a byte between them, after which a download is given up: about a minute."""

ENDED = frozenset(
    {
        pb.STUDY_STATE_COMPLETED,
        pb.STUDY_STATE_STOPPED,
        pb.STUDY_STATE_FAILED,
        pb.STUDY_STATE_INTERRUPTED,
        pb.STUDY_STATE_PAUSED,
    }
)
"""States in which nothing more happens to a study unless somebody sees to it."""


class RpcErrors:
    """Turns a failed call's error into ours.

    Args:
        address: Of the coordinator.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.RpcError):
            raise from_rpc(error, self._address) from None


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call.

    Attributes:
        method: Of its service.
        request: What is asked.
        pick: What of the answer is wanted.
        timeout_s: Its deadline.
    """

    method: str
    request: Message
    pick: Callable[[Any], T]
    timeout_s: float | None = CALL_TIMEOUT_S


Page = tuple[Sequence[T], str]
"""What lies on a page, and the token of the next one; "" on the last."""


def _study(answer: Any) -> pb.Study:
    study: pb.Study = answer.study
    return study


def _client(answer: Any) -> pb.Client:
    client: pb.Client = answer.client
    return client


def create(spec: pb.StudySpec) -> Call[pb.Study]:
    """Starts a study."""
    return Call("CreateStudy", pb.CreateStudyRequest(spec=spec), _study)


def get(name: str) -> Call[pb.Study]:
    """A study as it stands."""
    return Call("GetStudy", pb.GetStudyRequest(name=name), _study)


def pause(name: str) -> Call[pb.Study]:
    """Has a study stand still after the rounds under way."""
    return Call("PauseStudy", pb.PauseStudyRequest(name=name), _study)


def resume(name: str) -> Call[pb.Study]:
    """Goes on with a study that stands still, or is interrupted."""
    return Call("ResumeStudy", pb.ResumeStudyRequest(name=name), _study)


def stop(name: str) -> Call[pb.Study]:
    """Ends a study after the rounds under way."""
    return Call("StopStudy", pb.StopStudyRequest(name=name), _study)


def participation(study: str) -> Call[pb.Participation]:
    """Who has trained in a study so far and who has not."""

    def pick(answer: pb.GetParticipationResponse) -> pb.Participation:
        return answer.participation

    return Call("GetParticipation", pb.GetParticipationRequest(name=study), pick, HISTORY_TIMEOUT_S)


def cost(study: str) -> Call[pb.Cost]:
    """What a study has cost so far."""

    def pick(answer: pb.GetCostResponse) -> pb.Cost:
        return answer.cost

    return Call("GetCost", pb.GetCostRequest(name=study), pick, HISTORY_TIMEOUT_S)


def drain(client: str) -> Call[pb.Client]:
    """Has a client finish what it has, and be given nothing new."""
    return Call("DrainClient", pb.DrainClientRequest(name=client), _client)


def undrain(client: str) -> Call[pb.Client]:
    """Gives a drained client work again."""
    return Call("UndrainClient", pb.UndrainClientRequest(name=client), _client)


def studies(token: str) -> Call[Page[pb.Study]]:
    """A page of studies, by name."""
    request = pb.ListStudiesRequest(page_token=token)
    return Call("ListStudies", request, lambda answer: (answer.studies, answer.next_page_token))


def trials(study: str, token: str) -> Call[Page[pb.Trial]]:
    """A page of a study's trials, by number."""
    request = pb.ListTrialsRequest(study=study, page_token=token)
    return Call("ListTrials", request, lambda answer: (answer.trials, answer.next_page_token))


def clients(token: str) -> Call[Page[pb.Client]]:
    """A page of clients, by name."""
    request = pb.ListClientsRequest(page_size=1000, page_token=token)
    return Call("ListClients", request, lambda answer: (answer.clients, answer.next_page_token))
