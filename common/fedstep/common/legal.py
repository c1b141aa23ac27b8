"""Which values the standard hyper-parameters may take."""

import math

from fedstep.common.hyperparameters import Value
from fedstep.common.standard import STANDARD
from fedstep.common.validation import one_of, show

_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}


def type_fault(value: Value, default: Value) -> str | None:
    """What is wrong with the type of a value that stands in for this default; None when nothing is.

    A whole number may stand for a real one; nothing else is converted.
    """
    kind = type(default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        return f"is {show(value)}: it must be {_WORDS[kind]}."
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {show(value)}: it must be a finite number."
    return None


def standard_fault(name: str, value: Value) -> str | None:
    """What is wrong with that value of a standard hyper-parameter; None when nothing is.

    Raises:
        KeyError: The name is not a standard one.
    """
    standard = STANDARD[name]
    wrong_type = type_fault(value, standard.default)
    if wrong_type:
        return wrong_type
    if isinstance(value, str):
        legal = not standard.choices or value in standard.choices
        return None if legal else f"is {show(value)}: `{name}` is not that; {one_of(value, standard.choices)}"
    if standard.low is not None and value < standard.low:
        return f"is {show(value)}: `{name}` must be at least {standard.low:g}."
    if standard.high is not None and value > standard.high:
        return f"is {show(value)}: `{name}` must be at most {standard.high:g}."
    return None
