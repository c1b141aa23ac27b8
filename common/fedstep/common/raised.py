"""What somebody else's code raised, in one sentence: a task of a user's own may raise anything."""

import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import TypeVar

from fedstep.common.errors import FedstepError, InternalError, InvalidInputError

T = TypeVar("T")

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_LONGEST = 300

RAISED = (Exception, SystemExit)
"""What somebody else's code may raise and fedstep lives on with: a task that exits ends its own work only."""


def raised(error: BaseException) -> str:
    """The error and the line of somebody's own code that it comes from: `KeyError: 'age' (mine.py, line 11).`"""
    lines = _said(error).strip().splitlines()
    what = lines[0].strip().rstrip(".")[:_LONGEST] if lines else "no message"
    places = [*_places(error)]
    own = [place for place in places if not place[2]] or places
    if isinstance(error, SyntaxError):
        own, what = [(str(error.filename), error.lineno or 0, "")], error.msg
    where = ""
    if own:
        file, line, library = own[-1]
        where = f" ({library}{Path(file).name}, line {line})"
    return f"{type(error).__name__}: {what}{where}."


def in_a_sentence(error: BaseException) -> str:
    """What one of fedstep's errors says by itself, and what `raised` says of any other."""
    return error.message if isinstance(error, FedstepError) else raised(error)


def awaited(call: Callable[[], T]) -> T:
    """What the call answers, for one who awaits it: a StopIteration cannot cross a future, and would never wake him.

    Raises:
        InternalError: It raised one; in a sentence.
    """
    try:
        return call()
    except StopIteration as error:
        raise InternalError(raised(error)) from error


@contextmanager
def somebodys_code(what: str) -> Iterator[None]:
    """Runs somebody's own code, whose errors become one sentence.

    Args:
        what: It cannot do then: "The task mine cannot load its data".

    Raises:
        InvalidInputError: It raised; its own sentence where it is one of fedstep's errors.
    """
    try:
        yield
    except FedstepError:
        raise
    except RAISED as error:
        raise InvalidInputError(f"{what}: {raised(error)}") from error


def kind_of(value: object) -> str:
    """What somebody's own code answered, in words: `None`, `a list`."""
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its __str__ is somebody's own code, too
        return ""


def _places(error: BaseException) -> Iterator[tuple[str, int, str]]:
    """File and line of every frame, the outermost first; and whose it is, fedstep's or a library's: `torch's `."""
    for frame, line in walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")).partition(".")[0]
        library = file.startswith((*_LIBRARIES, "<")) or module == "fedstep"
        yield file, line, f"{module}'s " if library else ""
