"""The way to the coordinator that is open now, for transfers that outlive a connection."""

import asyncio
from dataclasses import dataclass

import grpc.aio


@dataclass(frozen=True)
class OpenLink:
    """A session's bulk connection.

    Attributes:
        session_id: What the coordinator calls the session.
        channel: The connection for bulk, apart from the control stream's.
        max_chunk_bytes: The largest chunk that may be sent.
        peer: `HOST:PORT`, for messages.
    """

    session_id: str
    channel: grpc.aio.Channel
    max_chunk_bytes: int
    peer: str


class Link:
    """Where transfers find the connection of the session that is open now, or wait for the next one."""

    def __init__(self) -> None:
        self._now: OpenLink | None = None
        self._opened = asyncio.Event()

    def open(self, link: OpenLink) -> None:
        """A session has begun."""
        self._now = link
        self._opened.set()

    def close(self) -> None:
        """The session has ended."""
        self._now = None
        self._opened.clear()

    def is_open(self, link: OpenLink) -> bool:
        """Whether that is the session that is open now."""
        return self._now is link

    async def wait(self) -> OpenLink:
        """The open session's link; waits for one as long as the caller lets it."""
        while self._now is None:
            await self._opened.wait()
        return self._now
