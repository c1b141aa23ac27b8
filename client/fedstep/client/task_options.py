"""Reads the options that tasks are given with `--option KEY=VALUE`: texts in, values or one plain sentence out."""

import math
from collections.abc import Iterable, Mapping

from fedstep.common.errors import InvalidInputError
from fedstep.common.phrases import whole_number_of
from fedstep.common.validation import nearest


def whole_number(options: Mapping[str, str], name: str, default: int, low: int) -> int:
    """A whole number, at least `low`.

    Raises:
        InvalidInputError: It is none.
    """
    text = options.get(name, str(default))
    number = whole_number_of(text)
    if number is None or number < low:
        raise InvalidInputError(f"The option {name}={text[:40]} must be a whole number, at least {low}.")
    return number


def positive_number(options: Mapping[str, str], name: str, default: float, most: float) -> float:
    """A number above 0, and no greater than `most`.

    Raises:
        InvalidInputError: It is none.
    """
    text = options.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise InvalidInputError(
            f"The option {name}={text} must be a number above 0 and at most {most:g}, such as {default}."
        )
    return value


def truth(options: Mapping[str, str], name: str, default: bool) -> bool:
    """`true` or `false`.

    Raises:
        InvalidInputError: It is neither.
    """
    text = options.get(name, str(default).lower())
    if text not in ("true", "false"):
        raise InvalidInputError(f"The option {name}={text} must be true or false.")
    return text == "true"


def known_name(options: Mapping[str, str], name: str, default: str, known: Iterable[str]) -> str:
    """One of the names there are.

    Raises:
        InvalidInputError: It is none of them; the nearest is proposed.
    """
    text = options.get(name, default)
    names = list(known)
    if text not in names:
        near = nearest(text, names)
        hint = f"did you mean {near}?" if near else f"give one of {', '.join(names)}."
        raise InvalidInputError(f"The option {name}={text} is not known: {hint}")
    return text


def check_known(options: Mapping[str, str], task: str, known: Iterable[str]) -> None:
    """Refuses options that the task does not have: a misspelt one would be passed over in silence.

    Raises:
        InvalidInputError: There is such an option.
    """
    names = sorted(known)
    for name in options:
        if name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(names)}."
            raise InvalidInputError(f"The task {task} has no option {name}: {hint}")
