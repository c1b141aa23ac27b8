"""Who may call what: one table, and one interceptor that holds every call against it."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from fedstep.common.errors import FedstepError, ForbiddenError, UnauthenticatedError, to_status
from fedstep.common.identity import Identity, Role, identity_of
from fedstep.server.api.handlers import Context, ManyAnswers, OneAnswer, wrapped

log = logging.getLogger(__name__)

_MOST_REFUSED = 1000
"""Callers and reasons that are remembered, so that each is a warning once."""

ANYBODY = None
"""Whoever the connection lets in: with certificates required, somebody who has one."""

TABLE: Mapping[str, Role | None] = {
    "/fedstep.v1.FleetService/Connect": Role.CLIENT,
    "/fedstep.v1.FleetService/FetchModel": Role.CLIENT,
    "/fedstep.v1.FleetService/PushUpdate": Role.CLIENT,
    "/fedstep.v1.FleetService/Probe": Role.CLIENT,
    "/fedstep.v1.StudyService/CreateStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/GetStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/ListStudies": Role.OPERATOR,
    "/fedstep.v1.StudyService/WatchStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/WatchProgress": Role.OPERATOR,
    "/fedstep.v1.StudyService/PauseStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/ResumeStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/StopStudy": Role.OPERATOR,
    "/fedstep.v1.StudyService/ListTrials": Role.OPERATOR,
    "/fedstep.v1.StudyService/ListSteps": Role.OPERATOR,
    "/fedstep.v1.StudyService/GetParticipation": Role.OPERATOR,
    "/fedstep.v1.StudyService/GetCost": Role.OPERATOR,
    "/fedstep.v1.StudyService/DownloadModel": Role.OPERATOR,
    "/fedstep.v1.StudyService/ListClients": Role.OPERATOR,
    "/fedstep.v1.StudyService/DrainClient": Role.OPERATOR,
    "/fedstep.v1.StudyService/UndrainClient": Role.OPERATOR,
    "/fedstep.v1.RunService/OpenRun": Role.OPERATOR,
    "/fedstep.v1.RunService/GetRun": Role.OPERATOR,
    "/fedstep.v1.RunService/ListRuns": Role.OPERATOR,
    "/fedstep.v1.RunService/StepRun": Role.OPERATOR,
    "/fedstep.v1.RunService/ForkRun": Role.OPERATOR,
    "/fedstep.v1.RunService/RestoreRun": Role.OPERATOR,
    "/fedstep.v1.RunService/CloseRun": Role.OPERATOR,
    # A probe of Docker's or Kubernetes' holds no token, and hears "serving" and nothing else.
    "/grpc.health.v1.Health/Check": ANYBODY,
    "/grpc.health.v1.Health/Watch": ANYBODY,
    # A tool in a person's hands.
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.OPERATOR,
}
"""The role that each method is for. What does not stand here is for nobody."""

_BEARER = "bearer "


class Tokens:
    """The tokens of each role, kept as digests and compared in constant time.

    Args:
        by_role: In plain text; not kept.
    """

    def __init__(self, by_role: Mapping[Role, Sequence[str]]) -> None:
        self._digests = [(role, _digest(token)) for role, tokens in by_role.items() for token in tokens]

    def role_of(self, token: str) -> Role | None:
        """The role that a token stands for; None where it is nobody's."""
        given = _digest(token)
        found = [role for role, digest in self._digests if hmac.compare_digest(digest, given)]
        return found[0] if found else None


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call whose caller has not the role that the table asks for.

    Args:
        tokens: By which callers are known; None where their certificates say who they are.
    """

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._refused: set[tuple[str, str]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Puts the check before the method: only there the caller's certificate can be read."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or (method in TABLE and TABLE[method] is ANYBODY):
            return handler

        def one(behaviour: OneAnswer) -> OneAnswer:
            async def guarded(request: Any, context: Context) -> Any:
                await self._check(method, context)
                return await behaviour(request, context)

            return guarded

        def many(behaviour: ManyAnswers) -> ManyAnswers:
            async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
                await self._check(method, context)
                async for answer in behaviour(request, context):
                    yield answer

            return guarded

        return wrapped(handler, one, many)

    async def _check(self, method: str, context: Context) -> None:
        try:
            _allow(method, self._caller(context))
        except FedstepError as error:
            # A client that is refused tries again every few seconds: once is enough for a log that is read.
            caller = context.peer().rpartition(":")[0], error.message
            level = logging.INFO if caller in self._refused else logging.WARNING
            if len(self._refused) < _MOST_REFUSED:
                self._refused.add(caller)
            log.log(level, "refused %s to %s: %s", method, context.peer(), error.message)
            await context.abort_with_status(to_status(error))

    def _caller(self, context: Context) -> Identity:
        """Who calls.

        Raises:
            UnauthenticatedError: They have not shown it.
            ForbiddenError: Their certificate names nobody.
        """
        if self._tokens is None:
            identity = _certified(context)
            if identity is None:
                raise ForbiddenError(
                    "This certificate names no client and no operator: make one with `fedstep pki enroll`."
                )
            return identity
        metadata: Any = context.invocation_metadata() or ()
        shown = [str(value) for key, value in metadata if key == "authorization"]
        if len(shown) != 1 or not shown[0].lower().startswith(_BEARER):
            raise UnauthenticatedError(
                "This coordinator takes callers with a token only: give --token-file FILE, or set FEDSTEP_TOKEN."
            )
        role = self._tokens.role_of(shown[0][len(_BEARER) :].strip())
        if role is None:
            raise UnauthenticatedError(
                "This coordinator knows no such token: give one of those in its --client-token-file or "
                "--operator-token-file."
            )
        return Identity(role, None)


def check_name(context: Context, name: str) -> None:
    """Raises where the caller's certificate is another client's. A token is a role's, and goes with every name.

    Args:
        context: The call's.
        name: What the client calls itself.

    Raises:
        ForbiddenError: It is enrolled as somebody else.
    """
    identity = _certified(context)
    if identity is not None and identity.name != name:
        raise ForbiddenError(
            f"This certificate is that of {identity}, and the client calls itself {name!r:.140}: "
            f"start it with --name {identity.name}, or enrol it under the other name with `fedstep pki enroll`."
        )


def _allow(method: str, caller: Identity) -> None:
    needed = TABLE.get(method)
    if needed is None:  # not in the table: what anybody may call has not come here
        raise ForbiddenError(f"Nobody may call {method}: it stands in no table of access.")
    if caller.role is not needed:
        service = method.rpartition("/")[0].rpartition(".")[2]
        fix = (
            f"use a certificate made with `fedstep pki enroll NAME --role {needed}`"
            if caller.name
            else "show its token"
        )
        raise ForbiddenError(f"{service} is for the role {needed}, and the caller is {caller}: {fix}.")


def _certified(context: Context) -> Identity | None:
    """Whom the caller's certificate names; it was verified when the connection was made."""
    uris = context.auth_context().get("peer_uri", ())
    return identity_of([uri.decode("ascii", "replace") for uri in uris])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
