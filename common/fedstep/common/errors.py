"""Every error a person can meet, each with its gRPC status and what to do next.

One sentence that names the thing, the value and the fix. On the wire an error is a
`google.rpc.Status` whose details carry the fields at fault; `from_rpc` turns it back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request or a file, and what is wrong with it.

    Attributes:
        field: A dotted path, such as `space.lr.low`.
        description: One sentence: the value and the fix.
    """

    field: str
    description: str


class FedstepError(Exception):
    """The root of every error that fedstep raises on purpose.

    Attributes:
        code: The gRPC status it travels as.
        violations: The fields at fault, where it is about input.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self)


class InvalidInputError(FedstepError):
    """What was given cannot be used: a study file, an option, a request."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(FedstepError):
    """The thing named does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(FedstepError):
    """The name is taken by something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PreconditionError(FedstepError):
    """Not in this state: a stale attempt, a study that has ended. A retry of the same call does not help."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class DataLossError(FedstepError):
    """Bytes that do not match their digest, or cannot be read back."""

    code = grpc.StatusCode.DATA_LOSS


class ExhaustedError(FedstepError):
    """Larger, or more, than the coordinator takes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class UnauthenticatedError(FedstepError):
    """Whoever calls has not shown who they are, or what they showed is not accepted. A retry does not help."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ForbiddenError(FedstepError):
    """It is known who calls, and they may not do this. A retry does not help."""

    code = grpc.StatusCode.PERMISSION_DENIED


class UntrustedError(FedstepError):
    """The coordinator has not shown that it is the one that was meant. Met by callers only; it never travels."""

    code = grpc.StatusCode.UNAUTHENTICATED


class UnavailableError(FedstepError):
    """Not now: nobody answers there, or it is going away. A later retry may succeed."""

    code = grpc.StatusCode.UNAVAILABLE


class StorageError(FedstepError):
    """The database or the model folder cannot be used as it is."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class InternalError(FedstepError):
    """A fault of fedstep's own."""

    code = grpc.StatusCode.INTERNAL


_BY_CODE: dict[grpc.StatusCode, type[FedstepError]] = {
    kind.code: kind
    for kind in (
        InvalidInputError,
        NotFoundError,
        AlreadyExistsError,
        PreconditionError,
        DataLossError,
        ExhaustedError,
        UnauthenticatedError,
        ForbiddenError,
        UnavailableError,
        InternalError,
    )
}
_NUMBER: dict[grpc.StatusCode, int] = {code: code.value[0] for code in grpc.StatusCode}


# What gRPC says of a connection that did not come about or broke: its own words help nobody.
_WHY_SILENT = {
    "Connection refused": "nothing listens there",
    "Failed parsing HTTP/2": "another program listens there",
    "No route to host": "the machine cannot be reached",
    "Network is unreachable": "the machine cannot be reached",
    "Connection timed out": "the machine cannot be reached",
    "errors resolving": "there is no machine of that name",
    "DNS resolution failed": "there is no machine of that name",
    "Socket closed": "the connection broke off",
    "Connection reset": "the connection broke off",
}

# gRPC takes 8 KiB of trailers. The message travels twice in them; where it is cut, the violations say the rest.
_MESSAGE_BYTES = 700
_DETAILS_BYTES = 4000


def to_status(error: FedstepError) -> grpc.Status:
    """The error as a status that `context.abort_with_status` takes, details included."""
    status = status_pb2.Status(code=_NUMBER[error.code], message=_cut(error.message, _MESSAGE_BYTES))
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            if bad_request.ByteSize() > _DETAILS_BYTES:
                break
            bad_request.field_violations.add(field=violation.field, description=_cut(violation.description, 1000))
        detail = any_pb2.Any()
        detail.Pack(bad_request)
        status.details.append(detail)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def from_rpc(error: grpc.RpcError, peer: str) -> FedstepError:
    """The FedstepError that a failed call stands for.

    Args:
        error: What the call raised.
        peer: Who was called, `HOST:PORT`, for the sentence when nobody answered.
    """
    code, details = error.code(), error.details() or ""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and not _is_ours(error):
        return UnavailableError(
            f"No coordinator answers at {peer}{_why_silent(code, details)}: start one with `fedstep coordinator`, "
            "or give the right address with --coordinator HOST:PORT."
        )
    if code is grpc.StatusCode.INTERNAL and not _is_ours(error):
        # gRPC's own: above all, a call that ended while it was written to. What it ended with is lost.
        return UnavailableError(f"The call to {peer} broke off ({details or 'no reason was given'}): try again.")
    violations = _violations(error)
    if violations and details.endswith("…"):
        details = "\n".join(f"{violation.field}: {violation.description}" for violation in violations)
    return _BY_CODE.get(code, InternalError)(details or f"{peer} answered {code.name}.", violations)


def _is_ours(error: grpc.RpcError) -> bool:
    """Whether the status came from our servicer, not from the transport: ours carries a packed Status."""
    return _status_of(error) is not None


def _status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    packed = dict(metadata).get("grpc-status-details-bin")
    return status_pb2.Status.FromString(packed) if isinstance(packed, bytes) else None


def _violations(error: grpc.RpcError) -> list[FieldViolation]:
    status = _status_of(error)
    found: list[FieldViolation] = []
    for detail in status.details if status else ():
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found += [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
    return found


def _cut(text: str, size_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size_bytes else encoded[: size_bytes - 3].decode(errors="ignore") + "…"


def _why_silent(code: grpc.StatusCode, details: str) -> str:
    """Why nobody answered, in brackets; "" where it cannot be said in plain words."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return " (no answer in time)"
    return next((f" ({words})" for part, words in _WHY_SILENT.items() if part in details), "")
