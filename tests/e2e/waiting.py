"""Waits for conditions, never for a guess at how long something takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
"""How long a condition may take to come true: far more than it does, because it ends a test that has failed."""


def eventually(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """Waits until the condition holds; answers with what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {timeout_s:g} s it did not come to this: {what}")
        time.sleep(0.02)
    return found


async def until(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """As `eventually`, on a running event loop."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {timeout_s:g} s it did not come to this: {what}")
        await asyncio.sleep(0.01)
    return found


async def until_true(condition: Callable[[], Awaitable[T]], what: str, timeout_s: float = PATIENCE_S) -> T:
    """As `until`, for a condition that must be awaited."""
    deadline = time.monotonic() + timeout_s
    while not (found := await condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {timeout_s:g} s it did not come to this: {what}")
        await asyncio.sleep(0.02)
    return found
