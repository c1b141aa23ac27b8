"""Errors over a real call: a servicer raises, a client reads the same error."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from fedstep.common.errors import (
    AlreadyExistsError,
    DataLossError,
    ExhaustedError,
    FedstepError,
    FieldViolation,
    ForbiddenError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc,
    to_status,
)

Handler = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


@asynccontextmanager
async def calling(handler: Handler) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    """A method that a real server answers, over a socket that only this test knows."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 'socket'}"
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(handler)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Call": method}),))
        server.add_insecure_port(address)
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel.unary_unary("/test.Service/Call")
        await server.stop(None)


async def over_the_wire(error: FedstepError) -> FedstepError:
    """What a client makes of an error that a servicer met."""

    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort_with_status(to_status(error))
        return b""

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    return from_rpc(caught.value, "somewhere:1")


@pytest.mark.parametrize(
    "kind",
    [
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
    ],
)
async def test_an_error_arrives_as_it_left(kind: type[FedstepError]) -> None:
    error = kind("The study münchen is not there: create it first.")
    again = await over_the_wire(error)
    assert type(again) is kind
    assert again.message == error.message
    assert again.violations == ()


async def test_fields_at_fault_arrive_in_order() -> None:
    violations = [FieldViolation("space.lr.low", "is -1: it must be at least 0."), FieldViolation("tuner.name", "…?")]
    again = await over_the_wire(InvalidInputError("two mistakes", violations))
    assert again.violations == tuple(violations)


async def test_a_storage_error_arrives_as_a_precondition() -> None:
    again = await over_the_wire(StorageError("The database is locked: stop the other coordinator."))
    assert type(again) is PreconditionError
    assert again.message == "The database is locked: stop the other coordinator."


async def test_an_error_without_a_status_of_its_own_arrives_as_internal() -> None:
    again = await over_the_wire(FedstepError("odd"))
    assert type(again) is InternalError
    assert again.message == "odd"


async def test_a_crash_in_a_servicer_is_internal() -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        raise RuntimeError("boom")

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    assert type(from_rpc(caught.value, "somewhere:1")) is InternalError


async def test_nobody_there_is_said_with_the_address_and_the_fix() -> None:
    async with grpc.aio.insecure_channel("unix:/nowhere/at/all") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Service/Call")(b"", timeout=30)
    error = from_rpc(caught.value, "host:7433")
    assert type(error) is UnavailableError
    assert "No coordinator answers at host:7433" in error.message
    assert "`fedstep coordinator`" in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("details", "why"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
            "Failed to connect to remote host: Connection refused",
            " (nothing listens there)",
        ),
        (
            "errors resolving nohost.invalid:7433: [field:hostname lookup error:address lookup failed for "
            "nohost.invalid:7433: Domain name not found]",
            " (there is no machine of that name)",
        ),
        (
            "failed to connect to all addresses; last error: INTERNAL: ipv4:127.0.0.1:46527: Failed parsing HTTP/2 "
            "(Expected SETTINGS frame as the first frame, got frame type 80)",
            " (another program listens there)",
        ),
        ("GOAWAY received; error code: 0\nsome stack", ""),
    ],
)
async def test_grpcs_own_words_for_silence_are_not_passed_on(details: str, why: str) -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNAVAILABLE, details)
        return b""

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    assert from_rpc(caught.value, "host:7433").message == (
        f"No coordinator answers at host:7433{why}: start one with `fedstep coordinator`, "
        "or give the right address with --coordinator HOST:PORT."
    )


async def test_a_deadline_that_passes_is_unavailable() -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return b""

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    assert type(from_rpc(caught.value, "host:7433")) is UnavailableError


async def test_a_call_that_ended_while_it_was_written_to_is_worth_another_attempt() -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "Internal error from Core")  # as grpc.aio says it
        return b""

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    error = from_rpc(caught.value, "host:7433")
    assert type(error) is UnavailableError
    assert error.message == "The call to host:7433 broke off (Internal error from Core): try again."


async def test_a_server_that_is_no_coordinator_is_no_crash() -> None:
    async def handler(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        return b""

    async with calling(handler) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=30)
    assert from_rpc(caught.value, "host:7433").message == "host:7433 answered UNIMPLEMENTED."


async def test_many_fields_at_fault_fit_into_a_status() -> None:
    violations = [
        FieldViolation(f"space.parameter_{n}.low", "is -1: it must be greater than 0 for a log scale.")
        for n in range(30)
    ]
    text = "\n".join(f"{v.field}: {v.description}" for v in violations)
    again = await over_the_wire(InvalidInputError(text, violations))
    assert again.violations == tuple(violations)
    assert again.message == text
