"""When to try again, and after how long."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from fedstep.client.link import Link, OpenLink
from fedstep.common.errors import UnavailableError, from_rpc

_PERMANENT = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)


@dataclass(frozen=True)
class Backoff:
    """Full jitter: a wait drawn evenly between nothing and a bound that doubles, so that clients come back spread out.

    Attributes:
        first_s: The first bound.
        most_s: The greatest bound.
    """

    first_s: float = 0.2
    most_s: float = 5.0

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait before another attempt, counted from 0."""
        return rng.uniform(0.0, min(self.most_s, self.first_s * 2.0 ** min(attempt, 30)))


class CutError(UnavailableError):
    """A transfer was cut off; what has arrived counts, and it can go on from there."""


class Persistence:
    """Tries a transfer again for as long as it gets on: its budget counts attempts without progress only.

    Waiting for a new session costs none of it. The overall end is the caller's: its assignment's deadline.
    """

    def __init__(self, rng: random.Random, backoff: Backoff, attempts: int = 8) -> None:
        self._rng = rng
        self._backoff = backoff
        self._attempts = attempts
        self._fruitless = 0

    def advance(self) -> None:
        """The transfer got further: the budget is whole again."""
        self._fruitless = 0

    async def pause(self, cut: CutError) -> None:
        """Waits before the next attempt.

        Args:
            cut: How the last one ended.

        Raises:
            CutError: The budget is spent.
        """
        self._fruitless += 1
        if self._fruitless > self._attempts:
            raise cut
        await asyncio.sleep(self._backoff.delay_s(self._fruitless - 1, self._rng))


@asynccontextmanager
async def cuts(link: Link, way: OpenLink, stall_s: float) -> AsyncIterator[None]:
    """Around one attempt at a transfer: whatever another attempt may cure becomes a CutError.

    Raises:
        CutError: The connection broke, stalled or was closed, or the session ended meanwhile.
        FedstepError: The coordinator refused, for good.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        refusal = from_rpc(error, way.peer)
        # A session that has just ended is unknown to the coordinator: that says nothing about the next one.
        if error.code() in _PERMANENT and link.is_open(way):
            raise refusal from error
        raise CutError(refusal.message) from error
    except TimeoutError as error:
        raise CutError(f"{way.peer} has taken or sent nothing for {stall_s:g} s") from error
    except asyncio.CancelledError:
        # A call on a closed channel raises this too, with nobody having cancelled this task.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CutError(f"the connection to {way.peer} was closed") from None
    except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
        raise CutError(f"the connection to {way.peer} was closed") from error
