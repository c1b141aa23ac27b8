"""Spaces of hyper-parameters: what may be tuned, over which range, and under which conditions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydantic import ConfigDict, RootModel, ValidationError, model_validator

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.grid import Grid, exists
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.legal import standard_fault
from fedstep.common.parameters import CategoricalParameter, FloatParameter, IntParameter, Parameter
from fedstep.common.standard import STANDARD
from fedstep.common.validation import MistakesError, join, one_of, sentences, show, violations_of

__all__ = ["CategoricalParameter", "FloatParameter", "Grid", "IntParameter", "Parameter", "Space"]

_MOST_PARAMETERS = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_KINDS: dict[str, type[FloatParameter] | type[IntParameter] | type[CategoricalParameter]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "categorical": CategoricalParameter,
}


class Space(RootModel[dict[str, Parameter]]):
    """Parameters by name, in the order of the study file.

    A parameter is written as a table: `{ low = 1e-4, high = 1, log = true }`, `{ choices = ["sgd", "adam"] }`. Its
    `type` is said by the table: choices make it categorical; a standard name has its own; else whole numbers make
    an int. A parameter with `when` exists only where its parents have one of the values named.
    """

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, raw: object) -> object:
        """Reads every parameter and collects what is wrong with any, each at its own field."""
        if isinstance(raw, Space):
            return raw.root
        if not isinstance(raw, Mapping):
            raise ValueError("it must be a table of parameters")
        parameters: dict[str, Parameter] = {}
        problems: list[FieldViolation] = []
        for name, value in raw.items():
            try:
                parameters[name] = _with_scope(name, _parameter(name, value), problems)
            except MistakesError as found:
                problems += [FieldViolation(join(name, v.field), v.description) for v in found.violations]
        if not raw or len(raw) > _MOST_PARAMETERS:
            what = "is empty: add a parameter" if not raw else f"has {len(raw)} parameters: drop some"
            problems.append(FieldViolation("", f"{what}; a space has 1 to {_MOST_PARAMETERS}."))
        problems += _standard_problems(parameters)
        parameters = _check_conditions(parameters, set(raw), problems)
        if problems:
            raise MistakesError(problems)
        return parameters

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Parameters by name, in the order of the study file."""
        return self.root

    @property
    def ordered(self) -> Mapping[str, Parameter]:
        """Parameters by name, every parent before the parameters that depend on it, else in the order of the file."""
        return {name: self.root[name] for name in _order(self.root)}

    def __len__(self) -> int:
        return len(self.root)

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def __getitem__(self, name: str) -> Parameter:
        return self.root[name]

    def active(self, values: Hyperparameters) -> Iterator[tuple[str, Parameter]]:
        """The parameters that exist beside these values, parents first; reads a value only after it was yielded."""
        for name, parameter in self.ordered.items():
            if exists(parameter, values):
                yield name, parameter

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A point drawn uniformly, each parameter on its own scale."""
        # One draw a parameter, whether it exists or not: the others do not depend on it.
        return self.from_unit({name: float(rng.random()) for name in self.ordered})

    def grid(self, points: int) -> Grid:
        """All points, with ranges cut into `points` levels.

        Raises:
            InvalidInputError: A range has too many steps, or the conditions are too many to count.
        """
        return Grid(self.ordered, points)

    def from_unit(self, units: Mapping[str, float]) -> dict[str, Value]:
        """The point at those coordinates.

        Args:
            units: In [0, 1] by name; those of parameters that do not exist at the point are not read.

        Raises:
            KeyError: A coordinate is missing.
        """
        values: dict[str, Value] = {}
        for name, parameter in self.active(values):
            values[name] = parameter.from_unit(units[name])
        return values

    def to_unit(self, values: Hyperparameters) -> dict[str, float]:
        """The coordinates of a valid point in [0, 1], by name, of the parameters that exist there."""
        return {name: parameter.to_unit(values[name]) for name, parameter in self.active(values)}

    def contains(self, values: Hyperparameters) -> bool:
        """Whether the values are a point of the space: see `validate_point`."""
        return not self._faults(values)

    def validate_point(self, values: Hyperparameters) -> None:
        """Checks that the values are a point: exactly the parameters that exist, each legal and in its own type.

        Raises:
            InvalidInputError: They are not; its violations name the parameters.
        """
        faults = self._faults(values)
        if faults:
            raise InvalidInputError(sentences(faults), faults)

    def value_faults(self, values: Mapping[str, Any], field: str) -> list[FieldViolation]:
        """What is wrong with values of some of its parameters, wherever a study file gives them.

        Args:
            values: By name.
            field: Where they stand.
        """
        faults = []
        for name, value in values.items():
            where, parameter = join(field, name), self.root.get(name)
            if parameter is None:
                faults.append(FieldViolation(where, f"there is no parameter `{name}`: {one_of(name, self.root)}"))
            elif all(self._is_legal(other, values.get(other)) for other in parameter.when) and not exists(
                parameter, values
            ):
                faults.append(FieldViolation(where, self.nowhere(name)))
            elif not self._is_legal(name, value):
                said = repr(value) if isinstance(value, float) else show(value)  # 8.0 is not 8
                faults.append(FieldViolation(where, f"is {said}: `{name}` is {parameter.describe()}."))
        return faults

    def nowhere(self, name: str) -> str:
        """What is wrong with a value of a parameter that does not exist where it is given."""
        conditions = " and ".join(f"{other} is one of {show(values)}" for other, values in self[name].when.items())
        return f"does not exist at this point (when {conditions}): drop it."

    def _is_legal(self, name: str, value: Any) -> bool:
        return isinstance(value, bool | int | float | str) and self[name].normal(value) is not None

    def in_own_types(self, values: Hyperparameters) -> dict[str, Value]:
        """The values in their parameters' types where that is the same: 1 as 1.0, 8.0 as 8; all others as they are."""
        found = {}
        for name, value in values.items():
            normal = self.root[name].normal(value) if name in self.root else None
            found[name] = value if normal is None else normal
        return found

    def _faults(self, values: Hyperparameters) -> list[FieldViolation]:
        faults = []
        active = dict(self.active(values))
        for name, parameter in active.items():
            if name not in values:
                faults.append(FieldViolation(name, f"is missing: give it a value, {parameter.describe()}."))
                continue
            normal = parameter.normal(values[name])
            if normal is None or type(normal) is not type(values[name]):
                kind = f" ({parameter.type})" if parameter.type != "categorical" else ""
                faults.append(
                    FieldViolation(name, f"is {show(values[name])}: it must be {parameter.describe()}{kind}.")
                )
        for name in values:
            if name not in self.root:
                faults.append(FieldViolation(name, f"is not in the space: {one_of(name, self.root)}"))
            elif name not in active:
                faults.append(FieldViolation(name, self.nowhere(name)))
        return faults


def _parameter(name: str, raw: object) -> Parameter:
    """One parameter from its table, with its type filled in."""
    if not _NAME.fullmatch(str(name)):
        raise MistakesError(
            [
                FieldViolation(
                    "",
                    "a parameter's name is a letter or _, then letters, digits, - and _, at most 64 in all; rename it.",
                )
            ]
        )
    if isinstance(raw, FloatParameter | IntParameter | CategoricalParameter):
        return raw
    if not isinstance(raw, Mapping):
        raise MistakesError([FieldViolation("", f"is {show(raw)}: {_how_to_write(raw)}")])
    kind = raw.get("type") if "type" in raw else _kind(name, raw)
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = one_of(str(kind), _KINDS)
        raise MistakesError([FieldViolation("type", f"is {show(kind)}: {hint}")])
    model = _KINDS[kind]
    try:
        return model.model_validate({**raw, "type": kind})
    except ValidationError as error:
        raise MistakesError(violations_of(error, model)) from None


def _how_to_write(raw: object) -> str:
    if isinstance(raw, list):
        return "write { choices = […] } for a choice, { low = …, high = … } for a range."
    return "a range is { low = …, high = … }; a fixed value belongs into [hyperparameters]."


def _kind(name: str, raw: Mapping[str, Any]) -> str:
    """The type of a parameter that does not say it."""
    if "choices" in raw:
        return "categorical"
    if name in STANDARD and isinstance(STANDARD[name].default, int | float):
        return "int" if isinstance(STANDARD[name].default, int) else "float"
    numbers = [raw[key] for key in ("low", "high", "step") if key in raw]
    return "int" if numbers and all(isinstance(number, int) for number in numbers) else "float"


def _with_scope(name: str, parameter: Parameter, problems: list[FieldViolation]) -> Parameter:
    """The parameter with its standard scope, and its values in the standard type."""
    standard = STANDARD.get(name)
    if standard is None:
        return parameter
    if "scope" in parameter.model_fields_set and parameter.scope != standard.scope:
        problems.append(
            FieldViolation(
                f"{name}.scope", f'is "{parameter.scope}": the scope of `{name}` is "{standard.scope}"; drop the line.'
            )
        )
    changes: dict[str, object] = {"scope": standard.scope}
    if isinstance(parameter, CategoricalParameter) and isinstance(standard.default, float):
        choices = tuple(float(c) if type(c) is int else c for c in parameter.choices)
        changes["choices"] = choices
    return parameter.model_copy(update=changes)


def _standard_problems(parameters: Mapping[str, Parameter]) -> list[FieldViolation]:
    """What fedstep would not understand of the parameters it knows itself."""
    problems = []
    for name, parameter in parameters.items():
        standard = STANDARD.get(name)
        if standard is None:
            continue
        if isinstance(parameter, CategoricalParameter):
            wrong = next(filter(None, (standard_fault(name, choice) for choice in parameter.choices)), None)
            if wrong:
                problems.append(FieldViolation(f"{name}.choices", wrong))
            continue
        if type(parameter.low) is not type(standard.default):
            kind = {int: 'type = "int"', float: 'type = "float"', str: "choices"}[type(standard.default)]
            problems.append(FieldViolation(f"{name}.type", f'is "{parameter.type}": `{name}` takes {kind}.'))
            continue
        for key, value in (("low", parameter.low), ("high", parameter.high)):
            wrong = standard_fault(name, value)
            if wrong:
                problems.append(FieldViolation(f"{name}.{key}", wrong))
    return problems


def _check_conditions(
    parameters: dict[str, Parameter], names: set[str], problems: list[FieldViolation]
) -> dict[str, Parameter]:
    """The parameters with the values of their conditions in the parents' own types.

    Args:
        parameters: Those that could be read.
        names: All that were written.
        problems: What is wrong is added here.
    """
    checked = {}
    for name, parameter in parameters.items():
        when: dict[str, tuple[Value, ...]] = {}
        for parent, values in parameter.when.items():
            field = f"{name}.when.{parent}"
            found = parameters.get(parent)
            if parent not in names or parent == name:
                others = names - {name}
                problems.append(
                    FieldViolation(field, f"there is no other parameter `{parent}`: {one_of(parent, others)}")
                )
            elif isinstance(found, FloatParameter):
                problems.append(FieldViolation(field, f"`{parent}` is a float: a condition needs choices or an int."))
            elif found is not None:
                normal = tuple(found.normal(value) for value in values)
                legal = tuple(value for value in normal if value is not None)
                illegal = [value for value, fine in zip(values, normal, strict=True) if fine is None]
                problems += [
                    FieldViolation(field, f"{show(value)} is not a value of `{parent}`: it is {found.describe()}.")
                    for value in illegal
                ]
                when[parent] = legal
        checked[name] = parameter.model_copy(update={"when": when}) if when else parameter
    circle = set(checked) - set(_order(checked))
    if circle and not problems:
        problems.append(
            FieldViolation(f"{min(circle)}.when", f"{show(sorted(circle))} depend on each other in a circle: drop one.")
        )
    return checked


def _order(parameters: Mapping[str, Parameter]) -> list[str]:
    """Names, parents first and each child soon after its last parent; what depends on itself is left out."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in done or not all(parent in done for parent in parameters[name].when):
            return
        done[name] = None
        for child, parameter in parameters.items():
            if name in parameter.when:
                visit(child)

    for name in parameters:
        visit(name)
    return list(done)
