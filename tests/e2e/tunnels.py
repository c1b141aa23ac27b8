"""A proxy that opens tunnels by HTTP's CONNECT, on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Tunnels:
    """One proxy.

    Attributes:
        port: Where it listens on loopback.
        answer: What it says to whoever asks for a tunnel.
        asked: The heads of the requests that it has had.
    """

    port: int = 0
    answer: str = "200 Connection established"
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        writer.write(f"HTTP/1.1 {self.answer}\r\n\r\n".encode())
        if self.answer.startswith("200"):
            host, _, port = head.split()[1].rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def tunnels(answer: str = Tunnels.answer) -> AsyncIterator[Tunnels]:
    """A proxy that says this to whoever asks for a tunnel."""
    proxy = Tunnels(answer=answer)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
