"""The calls of StudyService that have one answer, each once, for clients with and without an event loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fedstep.common.errors import FieldViolation, InvalidInputError, from_rpc
from fedstep.common.validation import show
from fedstep.v1 import study_pb2 as pb

T = TypeVar("T")
M = TypeVar("M", bound=Message)

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


_WANTED = {
    FieldDescriptor.CPPTYPE_UINT32: f"a whole number from 0 to {2**32 - 1}",
    FieldDescriptor.CPPTYPE_UINT64: f"a whole number from 0 to {2**64 - 1}",
    FieldDescriptor.CPPTYPE_STRING: "a text",
}


def request(kind: type[M], called: Mapping[str, str] = MappingProxyType({}), /, **fields: Any) -> M:
    """What is asked, with a caller's own values in it.

    Args:
        kind: Of the message.
        called: What the caller calls a field that has another name in the message.
        fields: By name.

    Raises:
        InvalidInputError: One is of another type, or out of range.
    """
    for name, value in fields.items():
        field = kind.DESCRIPTOR.fields_by_name[name]
        try:
            if value is None and not field.has_presence:
                raise TypeError
            kind(**{name: value})
        except (TypeError, ValueError):
            wanted = "bytes" if field.type == FieldDescriptor.TYPE_BYTES else _WANTED.get(field.cpp_type, "a message")
            raise unfit(called.get(name, name), value, wanted) from None
    return kind(**fields)


def unfit(argument: str, value: object, wanted: str) -> InvalidInputError:
    """What a value is refused with that an argument cannot have."""
    plain = value is None or type(value) in (bool, int, float, str, bytes)
    text = f"is {show(value)}{'' if plain else f' ({type(value).__name__})'}: give {wanted}."
    return InvalidInputError(f"{argument} {text}", [FieldViolation(argument, text)])


def _study(answer: Any) -> pb.Study:
    study: pb.Study = answer.study
    return study


def _client(answer: Any) -> pb.Client:
    client: pb.Client = answer.client
    return client


def create(spec: pb.StudySpec) -> Call[pb.Study]:
    """Starts a study."""
    return Call("CreateStudy", request(pb.CreateStudyRequest, spec=spec), _study)


def get(name: str) -> Call[pb.Study]:
    """A study as it stands."""
    return Call("GetStudy", request(pb.GetStudyRequest, name=name), _study)


def pause(name: str) -> Call[pb.Study]:
    """Has a study stand still after the rounds under way."""
    return Call("PauseStudy", request(pb.PauseStudyRequest, name=name), _study)


def resume(name: str) -> Call[pb.Study]:
    """Goes on with a study that stands still, or is interrupted."""
    return Call("ResumeStudy", request(pb.ResumeStudyRequest, name=name), _study)


def stop(name: str) -> Call[pb.Study]:
    """Ends a study after the rounds under way."""
    return Call("StopStudy", request(pb.StopStudyRequest, name=name), _study)


def participation(study: str) -> Call[pb.Participation]:
    """Who has trained in a study so far and who has not."""

    def pick(answer: pb.GetParticipationResponse) -> pb.Participation:
        return answer.participation

    return Call(
        "GetParticipation", request(pb.GetParticipationRequest, {"name": "study"}, name=study), pick, HISTORY_TIMEOUT_S
    )


def cost(study: str) -> Call[pb.Cost]:
    """What a study has cost so far."""

    def pick(answer: pb.GetCostResponse) -> pb.Cost:
        return answer.cost

    return Call("GetCost", request(pb.GetCostRequest, {"name": "study"}, name=study), pick, HISTORY_TIMEOUT_S)


def drain(client: str) -> Call[pb.Client]:
    """Has a client finish what it has, and be given nothing new."""
    return Call("DrainClient", request(pb.DrainClientRequest, {"name": "client"}, name=client), _client)


def undrain(client: str) -> Call[pb.Client]:
    """Gives a drained client work again."""
    return Call("UndrainClient", request(pb.UndrainClientRequest, {"name": "client"}, name=client), _client)


def studies(token: str) -> Call[Page[pb.Study]]:
    """A page of studies, by name."""
    return Call(
        "ListStudies",
        request(pb.ListStudiesRequest, page_token=token),
        lambda answer: (answer.studies, answer.next_page_token),
    )


def trials(study: str, token: str) -> Call[Page[pb.Trial]]:
    """A page of a study's trials, by number."""
    asked = request(pb.ListTrialsRequest, study=study, page_token=token)
    return Call("ListTrials", asked, lambda answer: (answer.trials, answer.next_page_token))


def clients(token: str) -> Call[Page[pb.Client]]:
    """A page of clients, by name."""
    asked = request(pb.ListClientsRequest, page_size=1000, page_token=token)
    return Call("ListClients", asked, lambda answer: (answer.clients, answer.next_page_token))


def watch(name: str, after: int) -> pb.WatchStudyRequest:
    """Asks for a study's events, those with a greater number than `after`."""
    return request(pb.WatchStudyRequest, {"after_event": "after"}, name=name, after_event=after)
