"""What a caller sees when something goes wrong: one sentence and a status, never a traceback."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from fedstep.common.errors import FedstepError, InternalError, to_status

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


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
        for kind, wrap in (
            ("unary_unary", _one_answer),
            ("stream_unary", _one_answer),
            ("unary_stream", _many_answers),
            ("stream_stream", _many_answers),
        ):
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                return getattr(grpc, f"{kind}_rpc_method_handler")(  # type: ignore[no-any-return]
                    wrap(behaviour), handler.request_deserializer, handler.response_serializer
                )
        return handler  # type: ignore[no-any-return]


def _one_answer(behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def wrapped(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except FedstepError as error:
            await context.abort_with_status(to_status(error))
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            await _internal(error, context)

    return wrapped


def _many_answers(behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for answer in behaviour(request, context):
                yield answer
        except FedstepError as error:
            await context.abort_with_status(to_status(error))
        except Exception as error:
            if isinstance(error, grpc.aio.AbortError):
                raise
            await _internal(error, context)

    return wrapped


async def _internal(error: Exception, context: Context) -> None:
    log.exception("a call failed")
    sentence = f"The coordinator failed ({type(error).__name__}); its log says where."
    await context.abort_with_status(to_status(InternalError(sentence)))
