"""Study files: reading one, and saying where in it a mistake stands."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.toml_lines import key_lines
from fedstep.common.validation import path_of, violations_of

_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def read_study(path: str | Path) -> StudySpec:
    """The study that a TOML file describes.

    Args:
        path: The file, in UTF-8.

    Raises:
        InvalidInputError: It cannot be read or holds mistakes: one line each, with file, line, value and fix.
    """
    return parse_study(_read(path_of(path)), path)


def parse_study(text: str, path: str | Path) -> StudySpec:
    """The study that a text in TOML describes.

    Args:
        text: What the file holds, or is to hold.
        path: The file, for what is said of mistakes.

    Raises:
        InvalidInputError: It holds mistakes, as with `read_study`.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(_syntax_error(path, text, error)) from None
    except ValueError:  # a number of thousands of digits, which Python refuses to read
        raise InvalidInputError(f"{path}: it holds a number that is far too long; shorten it.") from None
    except RecursionError:
        raise InvalidInputError(f"{path}: it is nested too deeply; write it with fewer brackets.") from None
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        violations = violations_of(error, StudySpec)
        raise InvalidInputError(_located(path, text, violations), violations) from None


def locate(path: str | Path, violations: Iterable[FieldViolation]) -> str:
    """Violations with the lines they stand in, one a line: `study.toml:14: space.lr.low: is 3, …`.

    For what a coordinator found wrong in a study that was read from a file.

    Args:
        path: The study file.
        violations: Fields as in the file, such as `space.lr.low`.

    Raises:
        InvalidInputError: The file cannot be read any more.
    """
    return _located(path, _read(Path(path)), violations)


def _located(path: str | Path, text: str, violations: Iterable[FieldViolation]) -> str:
    lines = key_lines(text)
    found = sorted(((_line_of(v.field, lines), v) for v in violations), key=lambda pair: pair[0])
    return "\n".join(
        f"{path}:{line}: {v.field}: {v.description}" if v.field else f"{path}:{line}: {v.description}"
        for line, v in found
    )


def _line_of(field: str, lines: dict[str, int]) -> int:
    """The line of the field, else of the nearest table around it, else the first."""
    while field and field not in lines:
        field = field.rpartition(".")[0]
    return lines.get(field, 1)


def _read(path: Path) -> str:
    try:
        # As bytes: newlines stay as they are and tomllib judges them.
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InvalidInputError(f"{path}: there is no such file; give the path of a study file.") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{path}: byte {error.start} is not UTF-8; a study file is a text in TOML, saved as UTF-8."
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidInputError(f"{path}: it cannot be read ({reason}); give a study file.") from None


def _syntax_error(path: str | Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    message = str(error)
    place = _TOML_PLACE.search(message)
    line = int(place[1]) if place and place[1] else text.rstrip().count("\n") + 1
    said = _TOML_PLACE.sub("", message)
    return f"{path}:{line}: this is not TOML: {said[:1].lower()}{said[1:]}; correct the line."
