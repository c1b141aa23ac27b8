"""A network that a test can cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes on between clients and a coordinator, unless it is silent.

    Args:
        target: The coordinator's address.
        idle_s: Ends a connection on which no byte has moved for so long.
        longest_s: Ends every connection that is so old.

    Attributes:
        ended: How many connections it has ended for one of these two.
    """

    def __init__(self, target: str, idle_s: float | None = None, longest_s: float | None = None) -> None:
        self._idle_s = idle_s
        self._longest_s = longest_s
        self.ended = 0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._passing = asyncio.Event()
        self._passing.set()
        self._relays: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def silence(self) -> None:
        """Loses every byte's way, both ways, without a word to either side: as a cable that is pulled."""
        self._passing.clear()

    def restore(self) -> None:
        """Everything held back goes on its way."""
        self._passing.set()

    def cut(self) -> None:
        """Ends every connection; new ones are taken."""
        for relay in self._relays:
            relay.cancel()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", port)

    async def away(self, seconds: float) -> None:
        """Ends every connection, and takes none for so long."""
        port = int(self.address.rpartition(":")[2])
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start(port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            with suppress(asyncio.CancelledError, ConnectionError):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
                try:
                    async with (
                        asyncio.timeout(self._longest_s),
                        asyncio.timeout(self._idle_s) as patience,
                        asyncio.TaskGroup() as group,
                    ):
                        group.create_task(self._pass_on(reader, far_writer, patience))
                        group.create_task(self._pass_on(far_reader, writer, patience))
                finally:
                    far_writer.close()
        except TimeoutError:
            self.ended += 1
        finally:
            writer.close()
            self._relays.discard(task)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, patience: asyncio.Timeout
    ) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                if self._idle_s is not None and not patience.expired():
                    patience.reschedule(asyncio.get_running_loop().time() + self._idle_s)
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def proxy(target: str, idle_s: float | None = None, longest_s: float | None = None) -> AsyncIterator[Proxy]:
    """A network to that address, until the block ends."""
    between = Proxy(target, idle_s, longest_s)
    await between.start()
    try:
        yield between
    finally:
        await between.stop()
