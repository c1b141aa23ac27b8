"""Numbers that clients on one machine claim: each holds a file of its own, which the system lets go when it dies."""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout


def claim_number(path_of: Callable[[int], Path], most: int, held: ExitStack) -> int:
    """The first number from 1 on that nobody holds; 0 where no file can be made, or all are taken.

    Args:
        path_of: The file of a number.
        most: Numbers are below this.
        held: Keeps the number for as long as it is open.
    """
    for number in range(1, most):
        try:
            held.enter_context(FileLock(path_of(number)).acquire(timeout=0))
        except Timeout:
            continue
        except OSError:
            return 0
        return number
    return 0


def common_folder() -> Path:
    """Where clients of one machine see each other's files: its temporary folder.

    Where none can be written, as in a container whose file system is read-only, it is one in which no file can be made.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.devnull) / "none"
