"""Who may do what at a coordinator that is protected: real sockets, real TLS, real certificates."""

import asyncio
import logging
import ssl
import warnings
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
import pytest
from e2e.inside import inside
from e2e.pki import TOKENS, Pki
from e2e.raw import hello
from e2e.studies import spec
from e2e.tiny import TinyWork, agent_of, tiny_agent
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fedstep.api.aio import connect
from fedstep.common.channel import open_channel
from fedstep.common.errors import FedstepError, ForbiddenError, UnauthenticatedError, from_rpc
from fedstep.common.identity import Role
from fedstep.common.security import Security
from fedstep.common.spec_proto import spec_to_proto
from fedstep.server.api.access import TABLE, AccessInterceptor
from fedstep.v1 import fleet_pb2, run_pb2, study_pb2
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
LOST = grpc.StatusCode.INTERNAL


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


async def refusal(address: str, security: Security, method: str) -> grpc.StatusCode | None:
    """With what a call of any method is refused for want of access; None where it got through to the method."""
    code: grpc.StatusCode | None = LOST
    while code is LOST:
        code = await attempt(address, security, method)
    return code if code in (DENIED, UNKNOWN) else None


async def attempt(address: str, security: Security, method: str) -> grpc.StatusCode | None:
    """How one call ended; LOST where it was over before its request was written: grpc.aio then forgets why."""
    async with open_channel(address, security) as channel:
        call = channel.stream_stream(method)(timeout=30)  # on the wire every kind of method is this one
        try:
            await call.write(b"")
            await call.read()
            code = await call.code() if call.done() else None
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            code = await call.code()  # it is over, also where its end has not been read yet
        call.cancel()
    return code


async def ends_with(address: str, name: str, security: Security) -> FedstepError:
    """The error that a client gives up with."""
    with pytest.raises(FedstepError) as caught:
        await agent_of(address, name, TinyWork(), security=security).run()
    return caught.value


# the table -----------------------------------------------------------------------------------------------------------


async def test_every_method_of_every_service_stands_in_the_table(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, open_channel(host.address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        served = {service.name for service in (await call.read()).list_services_response.service}
    files = (fleet_pb2, run_pb2, study_pb2, health_pb2, reflection_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    assert {service.full_name for service in services} == served
    assert {f"/{service.full_name}/{method.name}" for service in services for method in service.methods} == set(TABLE)


@pytest.mark.parametrize("tokens", [False, True], ids=["certificates", "tokens"])
async def test_every_method_takes_the_role_of_the_table_and_refuses_the_other(
    tmp_path: Path, pki: Pki, tokens: bool
) -> None:
    callers: Mapping[Role, Security] = {
        role: pki.stranger(TOKENS[role]) if tokens else pki.caller(role, "somebody") for role in Role
    }
    async with inside(tmp_path, protection=pki.protection(tokens)) as host:
        for method, needed in TABLE.items():
            for role, security in callers.items():
                expected = None if needed in (None, role) else DENIED
                assert await refusal(host.address, security, method) is expected, (method, role)


async def test_without_a_token_or_with_a_wrong_one_nothing_but_health_answers(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection(tokens=True)) as host:
        for method, needed in TABLE.items():
            expected = None if needed is None else UNKNOWN
            assert await refusal(host.address, pki.stranger(), method) is expected, method
            assert await refusal(host.address, pki.stranger("x" * 40), method) is expected, method


async def test_a_method_that_is_not_in_the_table_is_for_nobody(pki: Pki) -> None:
    async def answer(request: bytes, context: object) -> bytes:
        raise AssertionError("it was called")

    server = grpc.aio.server(interceptors=[AccessInterceptor(None)])
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("new.Service", {"Call": method}),))
    credentials = pki.protection().credentials()
    assert credentials is not None
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    for role in Role:
        assert await refusal(f"127.0.0.1:{port}", pki.caller(role, "somebody"), "/new.Service/Call") is DENIED
    await server.stop(None)


# a study -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [False, True], ids=["certificates", "tokens"])
async def test_a_study_runs_from_its_start_to_its_result(
    tmp_path: Path, pki: Pki, tokens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    callers = {role: pki.stranger(TOKENS[role]) if tokens else pki.caller(role, "ann") for role in Role}
    protection = pki.protection(tokens)
    async with (
        inside(tmp_path, protection=protection) as host,
        tiny_agent(host.address, "ann", security=callers[Role.CLIENT]),
        connect(host.address, callers[Role.OPERATOR]) as remote,
    ):
        await remote.create(spec_to_proto(spec()))
        await host.until_over("s")
        assert (await remote.get("s")).state == study_pb2.STUDY_STATE_COMPLETED
        assert [client.name for client in await remote.clients()] == ["ann"]
    said = caplog.text + repr(protection) + repr(callers)
    assert not any(token in said for token in TOKENS.values())
    assert "PRIVATE KEY" not in said


async def test_a_role_that_is_not_ones_own_is_refused_in_one_sentence(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        client, operator = pki.caller(Role.CLIENT, "ann"), pki.caller(Role.OPERATOR, "olga")
        async with connect(host.address, client) as remote:
            with pytest.raises(
                ForbiddenError, match=r"StudyService is for the role operator.* client ann: .*--role op"
            ):
                await remote.clients()
        error = await ends_with(host.address, "olga", operator)
        assert isinstance(error, ForbiddenError)
        assert "FleetService is for the role client" in error.message
        assert "operator olga" in error.message


# names ---------------------------------------------------------------------------------------------------------------


async def test_a_client_may_not_act_as_another(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        error = await ends_with(host.address, "bob", pki.caller(Role.CLIENT, "ann"))
        assert isinstance(error, ForbiddenError)
        assert "client ann" in error.message
        assert "--name ann" in error.message
        assert not host.coordinator.parts.fleet.records()


async def test_anothers_session_is_of_no_use(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection()) as host:
        ann, bob = pki.caller(Role.CLIENT, "ann"), pki.caller(Role.CLIENT, "bob")
        async with open_channel(host.address, ann) as hers, open_channel(host.address, bob) as his:
            call = FleetServiceStub(hers).Connect()
            await call.write(fleet_pb2.ConnectRequest(hello=hello("ann")))
            session_id = (await call.read()).welcome.session_id
            stolen = FleetServiceStub(his)
            fetch = stolen.FetchModel(fleet_pb2.FetchModelRequest(session_id=session_id, sha256=b"x"), timeout=30)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await fetch.read()
            assert caught.value.code() is DENIED
            header = fleet_pb2.UpdateHeader(session_id=session_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stolen.PushUpdate(iter([fleet_pb2.PushUpdateRequest(header=header)]), timeout=30)
            assert caught.value.code() is DENIED
            call.cancel()


async def test_clients_with_the_same_token_have_names_of_their_own(tmp_path: Path, pki: Pki) -> None:
    token = pki.stranger(TOKENS[Role.CLIENT])
    async with (
        inside(tmp_path, protection=pki.protection(tokens=True)) as host,
        tiny_agent(host.address, "ann", security=token),
        tiny_agent(host.address, "bob", security=token),
        connect(host.address, pki.stranger(TOKENS[Role.OPERATOR])) as remote,
    ):
        await remote.create(spec_to_proto(spec(round={"min_clients": 2})))
        await host.until_over("s")
        assert sorted(client.name for client in await remote.clients()) == ["ann", "bob"]


async def test_a_wrong_token_ends_a_client_at_once(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path, protection=pki.protection(tokens=True)) as host:
        error = await ends_with(host.address, "ann", pki.stranger("x" * 40))
        assert isinstance(error, UnauthenticatedError)
        assert "knows no such token" in error.message
        assert "xxx" not in error.message
        error = await ends_with(host.address, "ann", pki.stranger())
        assert isinstance(error, UnauthenticatedError)
        assert "--token-file" in error.message


async def test_who_is_refused_is_in_the_log_once_and_not_with_every_attempt(
    tmp_path: Path, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    method = "/fedstep.v1.StudyService/ListStudies"
    async with inside(tmp_path, protection=pki.protection(tokens=True)) as host:
        for _ in range(3):
            assert await refusal(host.address, pki.stranger("x" * 40), method) is UNKNOWN
    told = [record for record in caplog.records if record.getMessage().startswith("refused")]
    assert [record.levelname for record in told if record.levelno >= logging.WARNING] == ["WARNING"]
    assert all(f"refused {method} to ipv4:127.0.0.1" in record.getMessage() for record in told)


# the connection ------------------------------------------------------------------------------------------------------


async def test_tls_below_1_2_is_refused(tmp_path: Path, pki: Pki) -> None:
    async def version(most: ssl.TLSVersion) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki.ca.certificate)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.set_alpn_protocols(["h2"])
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = most
        _, port = host.address.split(":")
        _, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=context, server_hostname="127.0.0.1")
        found: str = writer.get_extra_info("ssl_object").version()
        writer.close()
        return found

    async with inside(tmp_path, protection=pki.protection(tokens=True)) as host:
        assert await version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            old = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await version(old)


async def test_a_refusal_says_no_more_than_its_sentence(tmp_path: Path, pki: Pki) -> None:
    async with (
        inside(tmp_path, protection=pki.protection()) as host,
        open_channel(host.address, pki.caller(Role.CLIENT, "ann")) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/fedstep.v1.StudyService/GetStudy")(b"", timeout=30)
        assert "\n" not in from_rpc(caught.value, host.address).message
