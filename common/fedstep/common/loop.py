"""One event loop a process."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from fedstep.common.allocator import keep_freed_memory

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a program's coroutine to its end, on uvloop where there is one."""
    keep_freed_memory()
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
