"""Mistakes in what a person wrote, in plain sentences: collected, then raised together.

pydantic checks the shape of a study; its own messages are for programmers. This module says the
same in words that name the value and the fix.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedstep.common.errors import FieldViolation, InvalidInputError

_LONGEST_SHOWN = 60


class MistakesError(ValueError):
    """Several mistakes that one validator found, each at its own field.

    A ValueError, so that pydantic goes on and reports the mistakes of other tables too.

    Attributes:
        violations: The mistakes; their fields are relative to what was validated, "" for the whole of it.
    """

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


def path_of(value: object) -> Path:
    """A path that somebody has handed over.

    Raises:
        InvalidInputError: It is none.
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise InvalidInputError(f"{show(value)} is no path: give the name of a file, as a text or a pathlib.Path.")


def show(value: object) -> str:
    """A value as a study file writes it, cut where it is long."""
    if isinstance(value, float):
        text = f"{value:.15g}"
    elif isinstance(value, bool | str | int):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, Mapping):
        text = "a table"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(show(item) for item in value[:8])}{', …' if len(value) > 8 else ''}]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one; None when none does."""
    by_lower = {other.lower(): other for other in known}
    wanted = name.lower()
    close = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)
    # Swapped letters are the commonest slip, a name cut short the next: "lgo" is `log`, "tpe" is `TPESampler`.
    swapped = [other for other in close if sorted(other) == sorted(wanted)]
    longer = [other for other in by_lower if len(wanted) > 2 and other.startswith(wanted)]
    best = swapped or close or longer
    return by_lower[best[0]] if best else None


def one_of(name: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown name: the nearest known one, else all of them."""
    names = list(known)
    close = nearest(name, names)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"known are {', '.join(f'`{other}`' for other in names)}." if names else "nothing may stand here."


def join(*parts: str) -> str:
    """A dotted path from its parts; empty ones are left out."""
    return ".".join(part for part in parts if part)


def sentences(violations: Iterable[FieldViolation]) -> str:
    """The violations as text, one a line, each with its field: `space.lr.low: is 3, above high = 1: swap them.`"""
    return "\n".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)


def violations_of(error: ValidationError, model: type[BaseModel]) -> list[FieldViolation]:
    """What pydantic found, in plain sentences.

    Args:
        error: What validating `model` raised.
        model: For the names of its keys, where one is misspelt.
    """
    found: list[FieldViolation] = []
    details = error.errors(include_url=False)
    misspelt = {_meant(detail, model) for detail in details if detail["type"] == "extra_forbidden"}
    for detail in details:
        if detail["type"] == "missing" and detail["loc"] in misspelt:
            continue  # it is there, under a misspelt name, which is reported
        path = ".".join(str(part) for part in detail["loc"])
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, MistakesError):
            found += [FieldViolation(join(path, v.field), v.description) for v in cause.violations]
        else:
            found.append(FieldViolation(path, _sentence(detail, model)))
    return found


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "a text in quotes",
    "dict": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "list": "a list",
    "tuple": "a list",
}

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One of pydantic's findings in words."""
    kind, context, name = detail["type"], detail.get("ctx", {}), str(detail["loc"][-1]) if detail["loc"] else ""
    value = show(detail["input"])
    if kind == "missing":
        return f"is missing: add {_how_to_add(model, detail['loc'])}."
    if kind == "extra_forbidden":
        return f"unknown key `{name}`: {_right_key(model, detail['loc'])}"
    if kind == "value_error":
        return f"is {value}: {context['error']}."
    if kind == "literal_error":
        return (
            f"is {value}: {one_of(str(detail['input']), re.findall(chr(39) + '(.*?)' + chr(39), context['expected']))}"
        )
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"is {value}: it must be {words} {context[key]:.15g}."
    if kind == "string_too_short":
        return f"is {value}: it must not be empty."
    for prefix, words in _EXPECTED.items():
        if kind.startswith(prefix):
            return f"is {value}: it must be {words}."
    return f"is {value}, which is not legal here."


def _meant(detail: ErrorDetails, model: type[BaseModel]) -> tuple[int | str, ...]:
    """Where an unknown key should stand if its nearest name was meant."""
    *table, name = detail["loc"]
    known = _model_at(model, table)
    return (*table, nearest(str(name), known.model_fields if known else []) or name)


def _how_to_add(model: type[BaseModel], location: Sequence[int | str]) -> str:
    name = str(location[-1])
    return f"a table `[{name}]`" if _model_at(model, location) else f"`{name} = …`"


def _right_key(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """What to write instead of an unknown key: the table that it belongs to, or a name of its own table."""
    name, table = str(location[-1]), _model_at(model, location[:-1])
    for other, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None and name in inner.model_fields:
            return f"it belongs into the table `[{other}]`."
    return one_of(name, table.model_fields if table else [])


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model of the table at that location; None when there is no table."""
    here: type[BaseModel] | None = model
    for part in location:
        field = here.model_fields.get(str(part)) if here else None
        here = _model_in(field.annotation) if field else None
    return here


def _model_in(annotation: object) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
