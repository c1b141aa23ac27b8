"""Two sides that cannot come together say why, and a client that never will does not go on trying."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.pki import PAST, Pki
from e2e.tiny import TinyWork, agent_of, tiny_agent
from e2e.waiting import until

from fedstep.api.aio import connect
from fedstep.client.events import ClientEvent
from fedstep.common.errors import FedstepError, UnauthenticatedError, UnavailableError, UntrustedError
from fedstep.common.handshake import why_not
from fedstep.common.identity import Role
from fedstep.common.security import PLAIN, Security
from fedstep.common.tls import read_authorities
from fedstep.server.protection import Protection


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@pytest.fixture
def other(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "other")


def elsewhere(pki: Pki, other: Pki) -> Security:
    """Somebody who trusts the right CA, and whose certificate is another's."""
    return replace(other.caller(Role.CLIENT, "ann"), authorities=read_authorities(pki.ca.certificate))


Caller = Callable[[Pki, Pki], Security]
Coordinator = Callable[[Pki, Pki], Protection]

FAULTS: dict[str, tuple[Coordinator, Caller, type[FedstepError], tuple[str, ...]]] = {
    "no certificate": (
        lambda pki, other: pki.protection(),
        lambda pki, other: pki.stranger(),
        UnauthenticatedError,
        ("takes only callers with a certificate", "--tls-cert", "fedstep pki enroll"),
    ),
    "a certificate of another CA": (
        lambda pki, other: pki.protection(),
        elsewhere,
        UnauthenticatedError,
        ("does not take the certificate", "ann.crt", "fedstep pki enroll"),
    ),
    "a certificate that has expired for the coordinator": (
        lambda pki, other: pki.protection(),
        lambda pki, other: pki.caller(Role.CLIENT, "ann", PAST),
        UnauthenticatedError,
        ("does not take the certificate", "ann.crt"),
    ),
    "a coordinator of another CA": (
        lambda pki, other: other.protection(),
        lambda pki, other: pki.caller(Role.CLIENT, "ann"),
        UntrustedError,
        ("another CA", "--tls-ca", "ca.crt"),
    ),
    "a coordinator whose certificate has expired": (
        lambda pki, other: Protection(pki.coordinator(lifetime=PAST), read_authorities(pki.ca.certificate)),
        lambda pki, other: pki.caller(Role.CLIENT, "ann"),
        UntrustedError,
        ("has expired", "fedstep pki coordinator"),
    ),
    "a client that plays the coordinator": (
        lambda pki, other: Protection(pki.caller(Role.CLIENT, "eve").pair, read_authorities(pki.ca.certificate)),
        lambda pki, other: pki.caller(Role.CLIENT, "ann"),
        UntrustedError,
        ("is not accepted", "purpose", "fedstep pki coordinator"),
    ),
    "a coordinator's certificate in a caller's hands": (
        lambda pki, other: pki.protection(),
        lambda pki, other: Security(read_authorities(pki.ca.certificate), pki.coordinator()),
        UnauthenticatedError,
        ("does not take the certificate", "fedstep pki enroll"),
    ),
    "a coordinator that speaks no TLS": (
        lambda pki, other: Protection(),
        lambda pki, other: pki.caller(Role.CLIENT, "ann"),
        UntrustedError,
        ("speaks no TLS", "--tls-ca"),
    ),
    "a caller who speaks no TLS": (
        lambda pki, other: pki.protection(),
        lambda pki, other: PLAIN,
        UnauthenticatedError,
        ("speaks TLS only", "--tls-ca"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_both_kinds_of_callers_give_up_in_one_sentence(tmp_path: Path, pki: Pki, other: Pki, fault: str) -> None:
    coordinator, caller, kind, words = FAULTS[fault]
    security = caller(pki, other)
    async with inside(tmp_path, protection=coordinator(pki, other)) as host:
        with pytest.raises(kind) as client:
            await agent_of(host.address, "ann", TinyWork(), security=security).run()
        with pytest.raises(kind) as operator:
            async with connect(host.address, security) as remote:
                await remote.clients()
        assert client.value.message == operator.value.message
        assert host.address in client.value.message
        assert "\n" not in client.value.message
        for word in words:
            assert word in client.value.message


async def test_a_name_that_the_certificate_does_not_hold(tmp_path: Path, pki: Pki) -> None:
    caller = pki.caller(Role.CLIENT, "ann")
    async with inside(tmp_path, host="0.0.0.0", protection=pki.protection()) as host:
        address = f"127.0.0.2:{host.coordinator.port}"  # this machine too
        with pytest.raises(UntrustedError, match=r"not for 127\.0\.0\.2: .*`fedstep pki coordinator 127\.0\.0\.2`"):
            await agent_of(address, "ann", TinyWork(), security=caller).run()


async def test_nothing_is_found_where_both_sides_agree_or_nobody_is_there(tmp_path: Path, pki: Pki) -> None:
    caller = pki.caller(Role.CLIENT, "ann")
    async with inside(tmp_path, protection=pki.protection()) as host:
        address = host.address
        assert await why_not(address, caller) is None
    assert await why_not(address, caller) is None
    assert await why_not(address, PLAIN) is None
    assert await why_not("unix:/nowhere", PLAIN) is None


async def test_a_coordinator_that_was_trusted_once_is_waited_for_aloud(tmp_path: Path, pki: Pki, other: Pki) -> None:
    heard: list[ClientEvent] = []

    def said(kind: str, words: str = "") -> list[ClientEvent]:
        return [event for event in heard if event.kind == kind and words in event.text]

    async with inside(tmp_path / "a", protection=pki.protection()) as host:
        address, port = host.address, host.coordinator.port
        agent = agent_of(address, "ann", TinyWork(), heard, pki.caller(Role.CLIENT, "ann"))
        running = asyncio.create_task(agent.run())
        await until(lambda: said("connected"), "the client is connected")
    async with inside(tmp_path / "b", port=port, protection=other.protection()):
        await until(lambda: said("disconnected", "another CA"), "the client says why it does not go back")
    async with inside(tmp_path / "c", port=port, protection=pki.protection()):
        await until(lambda: len(said("connected")) > 1, "the client is back")
    assert len(said("disconnected", "another CA")) == 1
    agent.stop()
    await running


async def test_a_coordinator_that_is_not_there_yet_is_waited_for(tmp_path: Path, pki: Pki) -> None:
    async with inside(tmp_path / "a", protection=pki.protection()) as host:
        port = host.coordinator.port
    heard: list[ClientEvent] = []
    async with tiny_agent(f"127.0.0.1:{port}", "ann", heard=heard, security=pki.caller(Role.CLIENT, "ann")):
        await until(lambda: [e for e in heard if e.kind == "disconnected"], "nobody is there")
        async with inside(tmp_path / "b", port=port, protection=pki.protection()):
            await until(lambda: [e for e in heard if e.kind == "connected"], "the client is connected")


async def test_an_operator_who_finds_nobody_hears_that(pki: Pki) -> None:
    with pytest.raises(UnavailableError):
        async with connect("127.0.0.1:9", pki.caller(Role.OPERATOR, "olga")) as remote:
            await remote.clients()
