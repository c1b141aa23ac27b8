"""What a caller sees when something goes wrong: one sentence and a status, never a traceback."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fedstep.common.errors import FedstepError, InternalError, InvalidInputError, UnavailableError, to_status
from fedstep.server.api.handlers import Context, ManyAnswers, OneAnswer, wrapped

log = logging.getLogger(__name__)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call that raised a FedstepError with its status and details; anything else is logged and INTERNAL."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of one call."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/fedstep."):
            return handler  # type: ignore[no-any-return]  # None means: no such method
        return wrapped(handler, _one_answer, _many_answers)


def _one_answer(behaviour: OneAnswer) -> OneAnswer:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await context.abort_with_status(to_status(_for_the_caller(error)))

    return guarded


def _many_answers(behaviour: ManyAnswers) -> ManyAnswers:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for answer in behaviour(request, context):
                yield answer
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await context.abort_with_status(to_status(_for_the_caller(error)))

    return guarded


def _for_the_caller(error: Exception) -> FedstepError:
    """What the caller is told; a fault of ours is logged, not one of theirs."""
    if isinstance(error, FedstepError):
        return error
    if isinstance(error, DecodeError):
        return InvalidInputError(
            "The bytes that came are no message of fedstep.v1: look at the program that sent them."
        )
    if isinstance(error, grpc.aio.InternalError):  # a write to a connection that is gone: nobody will hear it
        return UnavailableError("The connection broke in the middle of the call; try again.")
    log.exception("a call failed", exc_info=error)
    return InternalError(f"The coordinator failed ({type(error).__name__}); its log says where.")
