"""The proxy that gRPC takes to a coordinator where the environment names one, and connections through it.

gRPC takes the proxy that the first of `grpc_proxy`, `https_proxy` and `http_proxy` names, to loopback too, and none to
what `no_grpc_proxy`, or else `no_proxy`, ends with or holds.

Source: gRPC Core, "Default HTTP Proxy Mapper User Guide"; gRFC A1, "HTTP CONNECT proxy support".
"""

import asyncio
import base64
import os
import ssl
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

_NAMED_BY = ("grpc_proxy", "https_proxy", "http_proxy")
_NOT_FOR = ("no_grpc_proxy", "no_proxy")
_PORT = 80


@dataclass(frozen=True)
class Proxy:
    """A proxy that opens tunnels by HTTP's CONNECT.

    Attributes:
        variable: What in the environment names it.
        host: Where it is.
        port: The same.
        user: `USER:PASSWORD`, empty where it asks nobody.
    """

    variable: str
    host: str
    port: int
    user: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ProxyRefusalError(OSError):
    """A proxy is there and opens no tunnel; its answer is the text."""


def proxy_to(host: str) -> Proxy | None:
    """What gRPC goes through to a machine, by its name or address; None where it dials by itself."""
    variable = next((name for name in _NAMED_BY if name in os.environ), None)
    if variable is None or _goes_without(host):
        return None
    url = urlsplit(os.environ[variable])
    try:
        port = url.port or _PORT
    except ValueError:  # no number
        return None
    if url.scheme != "http" or not url.hostname:
        return None  # gRPC, too, takes no other
    user, _, _ = url.netloc.rpartition("@")
    return Proxy(variable, url.hostname, port, unquote(user))


def _goes_without(host: str) -> bool:
    named = next((os.environ[name] for name in _NOT_FOR if name in os.environ), "")
    return any(_covers(entry, host) for entry in map(str.strip, named.split(",")) if entry)


def _covers(entry: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry)


async def connect(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection by the way that gRPC would take.

    Args:
        host: To whom.
        port: To which port.
        context: For TLS with them.

    Raises:
        ProxyRefusalError: There is a proxy on the way, and it opens no tunnel.
        OSError: Nobody is there, or TLS fails.
    """
    proxy = proxy_to(host)
    name = None if context is None else host
    if proxy is None:
        return await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        await _open_tunnel(proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", reader, writer)
        if context is not None:
            await writer.start_tls(context, server_hostname=name)
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _open_tunnel(proxy: Proxy, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.user:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.user.encode()).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProxyRefusalError("it does not answer as a proxy does") from error
    _, _, status = head.decode("latin-1").partition("\r\n")[0].partition(" ")
    if not status.startswith("2"):
        raise ProxyRefusalError(status)
