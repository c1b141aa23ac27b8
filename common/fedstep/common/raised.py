"""What somebody else's code raised, in one sentence: a task of a user's own may raise anything."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_LONGEST = 300


def raised(error: BaseException) -> str:
    """The error and the line of somebody's own code that it comes from: `KeyError: 'age' (mine.py, line 11).`"""
    lines = str(error).strip().splitlines()
    what = lines[0].strip().rstrip(".")[:_LONGEST] if lines else "no message"
    places = [*_places(error)]
    own = [(file, line) for file, line, is_own in places if is_own] or [(file, line) for file, line, _ in places]
    if isinstance(error, SyntaxError):
        own, what = [(str(error.filename), error.lineno or 0)], error.msg
    where = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {what}{where}."


def _places(error: BaseException) -> Iterator[tuple[str, int, bool]]:
    """File and line of every frame, the outermost first, and whether it is neither fedstep's nor a library's."""
    for frame, line in walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        library = file.startswith((*_LIBRARIES, "<")) or module.partition(".")[0] == "fedstep"
        yield file, line, not library
