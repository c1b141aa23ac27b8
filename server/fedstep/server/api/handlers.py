"""What an interceptor puts around a method, whatever kind of method it is."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
OneAnswer: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
ManyAnswers: TypeAlias = Callable[[Any, Context], AsyncIterator[Any]]


def wrapped(
    handler: grpc.RpcMethodHandler[Any, Any],
    one: Callable[[OneAnswer], OneAnswer],
    many: Callable[[ManyAnswers], ManyAnswers],
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler with something around its behaviour.

    Args:
        handler: As the servicer gave it; all of ours, health's and reflection's are coroutines or async generators.
        one: Wraps a coroutine: a method that returns its answer, or writes its answers itself.
        many: Wraps an async generator.
    """
    known: Any = handler
    for kind in ("unary_unary", "stream_unary", "unary_stream", "stream_stream"):
        behaviour = getattr(known, kind)
        if behaviour is not None:
            wrap: Any = many if inspect.isasyncgenfunction(behaviour) else one
            return getattr(grpc, f"{kind}_rpc_method_handler")(  # type: ignore[no-any-return]
                wrap(behaviour), known.request_deserializer, known.response_serializer
            )
    return handler
