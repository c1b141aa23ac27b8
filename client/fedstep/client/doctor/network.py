"""Checks of the way to a coordinator: each step of it by itself, as gRPC would say the same of most of them."""

import asyncio
import socket
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TypeAlias

import grpc
import grpc.aio

from fedstep.client.doctor.checks import Found
from fedstep.common.channel import Endpoint, open_channel
from fedstep.common.errors import FedstepError, PreconditionError, UnavailableError, UntrustedError, from_rpc
from fedstep.common.handshake import caller_context, why_not
from fedstep.common.proxy import Proxy, ProxyRefusalError, connect, proxy_to
from fedstep.v1 import fleet_pb2 as pb
from fedstep.v1.fleet_pb2_grpc import FleetServiceStub

TIMEOUT_S = 10.0
"""How long the other side may take to say anything."""

ProbeCall: TypeAlias = "grpc.aio.StreamStreamCall[pb.ProbeRequest, pb.ProbeResponse]"

_DIAL_S = 5.0
_ATTEMPTS = 5
_SOON = timedelta(days=14)


async def resolve(coordinator: Endpoint) -> Found[list[str]]:
    """The addresses that the coordinator's name stands for, or that of the proxy that looks it up.

    Raises:
        UnavailableError: There is no such name.
    """
    host, port = coordinator.host_and_port
    proxy = proxy_to(host)
    name, where = (proxy.host, f"{proxy.variable} in the environment") if proxy else (host, "--coordinator")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: what cannot be a name
        why = "the name server does not answer" if isinstance(error, TimeoutError) else "this machine finds none"
        raise UnavailableError(
            f"There is no machine of the name {name} ({why}): correct {where}, or make the name known to this "
            "machine's name server or hosts file."
        ) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    text = f"{name} is an address" if name in addresses else f"{name} is {', '.join(addresses)}"
    return Found(addresses, f"{proxy.variable} leads through a proxy, which looks {host} up; {text}" if proxy else text)


async def dial(coordinator: Endpoint, addresses: list[str]) -> Found[None]:
    """Whether anything listens at one of the addresses, or behind the proxy.

    Raises:
        UnavailableError: Nothing does, or nothing can be reached.
    """
    host, port = coordinator.host_and_port
    proxy = proxy_to(host)
    if proxy is not None:
        return await _dial_through(proxy, coordinator)
    faults: dict[str, OSError] = {}
    for address in addresses:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(_DIAL_S):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:
            faults[address] = error
            continue
        took_ms = (time.perf_counter() - began) * 1e3
        writer.transport.abort()
        text = f"something listens at {address} port {port}, {took_ms:.1f} ms away"
        if faults:
            return Found(None, f"{text}; not at {', '.join(faults)}: clients try that first", warning=True)
        return Found(None, text)
    raise UnavailableError(_not_there(coordinator, list(faults.values())))


async def _dial_through(proxy: Proxy, coordinator: Endpoint) -> Found[None]:
    host, port = coordinator.host_and_port
    began = time.perf_counter()
    named = f"the proxy {proxy}, which {proxy.variable} in the environment names,"
    without = f"or, where there is a way without it, add {host} to no_proxy"
    try:
        async with asyncio.timeout(_DIAL_S):
            _, writer = await connect(host, port)
    except ProxyRefusalError as error:
        raise UnavailableError(
            f"{coordinator} cannot be reached through {named} ({error}): have it let CONNECT to port {port} through "
            f"and see that the coordinator runs, {without}."
        ) from error
    except OSError as error:
        why = f"no answer within {_DIAL_S:g} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UnavailableError(
            f"{coordinator} cannot be reached, since {named} cannot ({why}): correct {proxy.variable}, {without}."
        ) from error
    took_ms = (time.perf_counter() - began) * 1e3
    writer.transport.abort()
    return Found(None, f"the proxy {proxy} connects to {coordinator}, {took_ms:.1f} ms away")


def _not_there(coordinator: Endpoint, faults: list[OSError]) -> str:
    _, port = coordinator.host_and_port
    if any(isinstance(fault, ConnectionRefusedError) for fault in faults):
        return (
            f"The machine is there, and nothing listens at {coordinator}: start `fedstep coordinator` on it (off its "
            "own loopback it listens with --host 0.0.0.0), or correct the port in --coordinator."
        )
    if any(isinstance(fault, TimeoutError) for fault in faults):
        return (
            f"{coordinator} does not answer within {_DIAL_S:g} s: the machine is off, or a firewall on the way drops "
            f"what is sent to TCP port {port}, let it through."
        )
    why = (faults[0].strerror or str(faults[0])).lower()
    return f"{coordinator} cannot be reached ({why}): check this machine's network and the address in --coordinator."


async def secure(coordinator: Endpoint, unusable: FedstepError | None) -> Found[None]:
    """Whether both sides mean the same by a safe connection, and until when.

    Args:
        coordinator: The other side.
        unusable: Why this side's files cannot be used.

    Raises:
        FedstepError: They do not, as `why_not` says it, or a file cannot be used.
        UntrustedError: The other side never ended the handshake.
    """
    address, security = str(coordinator), coordinator.security
    fault = unusable or await why_not(address, security)
    if fault is not None:
        raise fault
    host, port = coordinator.host_and_port
    if security.authorities is None:
        if _is_this_machine(host):
            return Found(None, "no TLS is asked for; on one machine it needs none")
        text = "no TLS is asked for: whoever is on the way reads everything and may change it, give --tls-ca"
        return Found(None, text, warning=True)
    try:
        async with asyncio.timeout(_DIAL_S):
            context = await asyncio.to_thread(caller_context, security)
            _, writer = await connect(host, port, context)
    except OSError as error:
        raise UntrustedError(
            f"What listens at {coordinator} does not end a TLS handshake: correct the port in --coordinator, or look "
            "for a proxy on the way."
        ) from error
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    ends = {"the coordinator's": _end_of(tls)} | ({"ours": security.pair.ends} if security.pair else {})
    version = tls.version()
    writer.transport.abort()
    until = " and ".join(f"{end:%Y-%m-%d} ({whose})" for whose, end in ends.items())
    soon = min(ends.values()) - datetime.now(UTC) < _SOON
    text = f"{version}, trusted as {host}; certificates until {until}"
    return Found(None, f"{text}: make a new one with `fedstep pki`" if soon else text, warning=soon)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _end_of(tls: ssl.SSLObject) -> datetime:
    """When the certificate that was verified expires."""
    certificate = tls.getpeercert()
    assert certificate
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


async def ask(coordinator: Endpoint, client_name: str) -> Found[pb.ProbeAnswer]:
    """Whether a coordinator is there that lets this client in.

    Raises:
        FedstepError: It is another program, or will not have this caller.
    """
    question = pb.ProbeRequest(question=pb.ProbeQuestion(client_name=client_name))
    async with open_channel(str(coordinator), coordinator.security) as channel:
        for attempt in range(_ATTEMPTS):
            try:
                answer = await _answer(channel, question)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL and attempt < _ATTEMPTS - 1:
                    continue  # it was refused while the question was written: grpc.aio forgets why
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise PreconditionError(
                        f"What answers at {coordinator} is no coordinator, or one older than this fedstep: correct the "
                        "port in --coordinator, or upgrade the coordinator with `pip install --upgrade fedstep`."
                    ) from error
                raise from_rpc(error, str(coordinator)) from error
    pair = coordinator.security.pair
    shown = {
        "certificates": f"let in as {pair.identity}" if pair and pair.identity else "let in by a certificate",
        "tokens": "let in by a token",
    }
    return Found(answer, shown.get(answer.callers, "let in; this coordinator asks nobody who calls"))


async def put(call: ProbeCall, question: pb.ProbeRequest) -> object:
    """What is read after a question."""
    with suppress(asyncio.InvalidStateError):  # it is over already: reading says why
        await call.write(question)
    return await call.read()


async def _answer(channel: grpc.aio.Channel, question: pb.ProbeRequest) -> pb.ProbeAnswer:
    call = FleetServiceStub(channel).Probe(timeout=TIMEOUT_S)
    try:
        response = await put(call, question)
    finally:
        call.cancel()
    if not isinstance(response, pb.ProbeResponse) or response.WhichOneof("part") != "answer":
        raise UnavailableError("What answered there did not answer as a coordinator does: correct --coordinator.")
    return response.answer
