"""The built-in selectors by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.common.validation import join, one_of, sentences, show, violations_of
from fedstep.server.selection.base import Selector
from fedstep.server.selection.deadline import DeadlineOptions, DeadlineSelector
from fedstep.server.selection.everyone import Everyone
from fedstep.server.selection.oort import OortOptions, OortSelector
from fedstep.server.selection.power_of_choice import PowerOfChoice, PowerOfChoiceOptions
from fedstep.server.selection.uniform import Uniform


class NoOptions(BaseModel):
    """What a selector takes that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class _Entry:
    """How one selector is made, from its options as `options` has checked them."""

    options: type[BaseModel]
    create: Callable[[Any], Selector]


def _selectors() -> Mapping[str, _Entry]:
    return {
        "deadline": _Entry(DeadlineOptions, DeadlineSelector),
        "oort": _Entry(OortOptions, OortSelector),
        "power_of_choice": _Entry(PowerOfChoiceOptions, PowerOfChoice),
        "random": _Entry(NoOptions, lambda options: Uniform()),
        "all": _Entry(NoOptions, lambda options: Everyone()),
    }


def validate_selector(spec: Plugin) -> None:
    """Checks the name and the options of a study's selector.

    Raises:
        InvalidInputError: There is none of that name, or it does not take such an option; with the nearest name.
    """
    create_selector(spec)


def create_selector(spec: Plugin) -> Selector:
    """The selector of a study.

    Raises:
        InvalidInputError: As `validate_selector`.
    """
    selectors = _selectors()
    if spec.name not in selectors:
        raise _refusal([FieldViolation("selector.name", f"is {show(spec.name)}: {one_of(spec.name, selectors)}")])
    entry = selectors[spec.name]
    if entry.options is NoOptions and spec.options:
        said = f"{spec.name} takes no options: remove this line."
        raise _refusal([FieldViolation(f"selector.{option}", said) for option in spec.options])
    try:
        return entry.create(entry.options.model_validate(spec.options))
    except ValidationError as error:
        faults = [FieldViolation(join("selector", v.field), v.description) for v in violations_of(error, entry.options)]
        raise _refusal(faults) from None


def _refusal(faults: list[FieldViolation]) -> InvalidInputError:
    return InvalidInputError(sentences(faults), faults)
