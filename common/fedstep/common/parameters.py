"""One tunable hyper-parameter: what values it may take and on which scale.

Every kind maps its values to the unit interval and back (`to_unit`, `from_unit`): sampling, grids and
step-wise search are all written against that.
"""

import math
import numbers
from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.standard import Scope
from fedstep.common.validation import MistakesError, one_of, show

_INT64 = 2**63
_MOST_LEVELS = 10_000
_FINEST = 1e12


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("it must be a number, without quotes")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("it must be a finite number")
    return number


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        raise ValueError(f'it must be a whole number: write {int(value)}, or say type = "float"')
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("it must be a whole number, without quotes")
    if not -_INT64 <= value < _INT64:
        raise ValueError("it must fit into 64 bits")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def _scope(value: object) -> Scope:
    if not isinstance(value, str) or value not in list(Scope):
        raise ValueError(one_of(str(value), [str(scope) for scope in Scope]).rstrip("."))
    return Scope(value)


def _values(value: object) -> tuple[Value, ...]:
    """Numbers, texts or truth values, of one type; whole numbers among reals become reals."""
    if not isinstance(value, list | tuple):
        raise ValueError("it must be a list")
    if not value:
        raise ValueError("it must not be empty")
    kinds: set[type] = {type(item) for item in value}
    if not kinds <= {bool, int, float, str}:
        raise ValueError("it may hold numbers, texts in quotes, true and false only")
    if kinds == {int, float}:
        value, kinds = [float(item) for item in value], {float}
    if len(kinds) > 1:
        raise ValueError("its values must all be of one type: all numbers, all texts or all true and false")
    if kinds == {float} and not all(math.isfinite(item) for item in value):
        raise ValueError("its values must be finite numbers")
    if kinds == {int} and not all(-_INT64 <= item < _INT64 for item in value):
        raise ValueError("its values must fit into 64 bits")
    if len(set(value)) < len(value):
        twice = next(item for item in value if list(value).count(item) > 1)
        raise ValueError(f"{show(twice)} stands in it twice: remove one")
    return tuple(value)


def _conditions(value: object) -> object:
    """`when = { optimizer = "sgd" }` stands for a list of one value."""
    if not isinstance(value, Mapping):
        raise ValueError('it must be a table such as { optimizer = "sgd" }')
    problems, conditions = [], {}
    for name, values in value.items():
        try:
            conditions[name] = _values(values if isinstance(values, list | tuple) else [values])
        except ValueError as error:
            problems.append(FieldViolation(str(name), f"is {show(values)}: {error}."))
    if problems:
        raise MistakesError(problems)
    return conditions


Real = Annotated[float, BeforeValidator(_real)]
Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Choices = Annotated[tuple[Value, ...], BeforeValidator(_values)]
Conditions = Annotated[dict[str, tuple[Value, ...]], BeforeValidator(_conditions)]


class BaseParameter(BaseModel):
    """What all kinds of parameters share.

    Attributes:
        scope: Who acts on it. A standard name has its own; for others, the client.
        when: The parameter exists only where every parameter named here exists and has one of these values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Annotated[Scope, BeforeValidator(_scope)] = Scope.CLIENT
    when: Conditions = Field(default_factory=dict)

    @abstractmethod
    def from_unit(self, unit: float) -> Value:
        """The value at that place of the unit interval; equal shares of it are equally likely values."""

    @abstractmethod
    def to_unit(self, value: Value) -> float:
        """Where a legal value lies in [0, 1]; `from_unit` gives it back."""

    @abstractmethod
    def levels(self, points: int) -> tuple[Value, ...]:
        """Distinct values that stand for the whole range, in order: `points` of them where it has more.

        Raises:
            InvalidInputError: There are too many to list.
        """

    @abstractmethod
    def normal(self, value: Value) -> Value | None:
        """A legal value in the parameter's own type (1 as 1.0 among floats); None when it is not legal."""

    @abstractmethod
    def describe(self) -> str:
        """Its legal values, for a sentence: "from 0.1 to 1"."""


class FloatParameter(BaseParameter):
    """Real numbers from low to high, both included.

    Attributes:
        low: The least value.
        high: The greatest value.
        log: Draw on a logarithmic scale; needs low > 0.
        step: Distance between values, counted from low; None for none. Not with log.
    """

    type: Literal["float"] = "float"
    low: Real
    high: Real
    log: Flag = False
    step: Real | None = None

    @model_validator(mode="after")
    def _check(self) -> "FloatParameter":
        _check_range(self.low, self.high, self.log, self.step)
        return self

    @property
    def last_step(self) -> int:
        """How many steps lead from low to the greatest value; 0 without a step."""
        if self.step is None:
            return 0
        return int((_exact(self.high) - _exact(self.low)) // _exact(self.step))

    def from_unit(self, unit: float) -> float:
        """See `BaseParameter.from_unit`."""
        if self.step is not None:
            return self._at(_cell(unit, self.last_step + 1))
        if unit <= 0 or unit >= 1:
            return self.low if unit <= 0 else self.high
        if self.log:
            value = math.exp((1 - unit) * math.log(self.low) + unit * math.log(self.high))
        else:
            value = (1 - unit) * self.low + unit * self.high
        return min(max(value, self.low), self.high)

    def to_unit(self, value: Value) -> float:
        """See `BaseParameter.to_unit`."""
        number = float(value)
        if self.step is not None:
            return (round((number - self.low) / self.step) + 0.5) / (self.last_step + 1)
        if self.low == self.high:
            return 0.5
        if self.log:
            unit = math.log(number / self.low) / math.log(self.high / self.low)
        else:
            # Halves, so that the widest range there is does not overflow.
            unit = (number / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(max(unit, 0.0), 1.0)

    def levels(self, points: int) -> tuple[Value, ...]:
        """All values of a range with a step; else `points` of them, evenly spread on its own scale."""
        if self.step is not None:
            _check_countable(self.last_step + 1)
            return tuple(self._at(k) for k in range(self.last_step + 1))
        return tuple(sorted({self.from_unit(unit) for unit in _spread(points)}))

    def normal(self, value: Value) -> float | None:
        """See `BaseParameter.normal`."""
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return None
        number = float(value)
        if self.step is not None:
            # The same tolerance as Optuna's, so that both sides call the same values legal.
            k = (number - self.low) / self.step
            return number if abs(k - round(k)) < 1e-8 and round(k) <= self.last_step else None
        return number

    def describe(self) -> str:
        """See `BaseParameter.describe`."""
        return f"from {show(self.low)} to {show(self.high)}" + (f" in steps of {show(self.step)}" if self.step else "")

    def _at(self, k: int) -> float:
        value = float(_exact(self.low) + k * _exact(self.step or 0.0))
        return min(max(value, self.low), self.high)


class IntParameter(BaseParameter):
    """Whole numbers from low to high, both included.

    Attributes:
        low: The least value.
        high: The greatest value.
        log: Draw on a logarithmic scale; needs low > 0.
        step: Distance between values, counted from low. Not with log.
    """

    type: Literal["int"] = "int"
    low: Whole
    high: Whole
    log: Flag = False
    step: Whole = 1

    @model_validator(mode="after")
    def _check(self) -> "IntParameter":
        _check_range(self.low, self.high, self.log, self.step if self.step != 1 else None)
        return self

    @property
    def last_step(self) -> int:
        """How many steps lead from low to the greatest value."""
        return (self.high - self.low) // self.step

    def from_unit(self, unit: float) -> int:
        """See `BaseParameter.from_unit`."""
        if not self.log:
            return self.low + _cell(unit, self.last_step + 1) * self.step
        # Half a unit beyond both ends, so that the ends get their share.
        value = round(math.exp((1 - unit) * math.log(self.low - 0.5) + unit * math.log(self.high + 0.5)))
        return min(max(value, self.low), self.high)

    def to_unit(self, value: Value) -> float:
        """See `BaseParameter.to_unit`."""
        if not self.log:
            return ((int(value) - self.low) // self.step + 0.5) / (self.last_step + 1)
        low = math.log(self.low - 0.5)
        return (math.log(int(value)) - low) / (math.log(self.high + 0.5) - low)

    def levels(self, points: int) -> tuple[Value, ...]:
        """All values of a range with a step or with no more than `points`; else `points`, evenly spread."""
        if self.step > 1 or self.last_step < points:
            _check_countable(self.last_step + 1)
            return tuple(range(self.low, self.high + 1, self.step))
        if points == 1:
            return (self.from_unit(0.5),)
        if self.log:
            ends = math.log(self.low), math.log(self.high)
            spread = {round(math.exp((1 - unit) * ends[0] + unit * ends[1])) for unit in _spread(points)}
        else:
            spread = {self.low + round(unit * self.last_step) for unit in _spread(points)}
        return tuple(sorted(min(max(value, self.low), self.high) for value in spread))

    def normal(self, value: Value) -> int | None:
        """See `BaseParameter.normal`."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            return None
        return value if (value - self.low) % self.step == 0 else None

    def describe(self) -> str:
        """See `BaseParameter.describe`."""
        return f"whole numbers from {self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


class CategoricalParameter(BaseParameter):
    """One of the choices given, all of one type.

    Attributes:
        choices: Distinct, at least one.
    """

    type: Literal["categorical"] = "categorical"
    choices: Choices

    def from_unit(self, unit: float) -> Value:
        """See `BaseParameter.from_unit`."""
        return self.choices[_cell(unit, len(self.choices))]

    def to_unit(self, value: Value) -> float:
        """See `BaseParameter.to_unit`."""
        return (self.choices.index(value) + 0.5) / len(self.choices)

    def levels(self, points: int) -> tuple[Value, ...]:
        """All choices."""
        return self.choices

    def normal(self, value: Value) -> Value | None:
        """See `BaseParameter.normal`."""
        kind = type(self.choices[0])
        if kind is float and type(value) is int:
            value = float(value)
        return value if type(value) is kind and value in self.choices else None

    def describe(self) -> str:
        """See `BaseParameter.describe`."""
        return f"one of {show(self.choices)}"


Parameter = FloatParameter | IntParameter | CategoricalParameter
"""Any parameter of a space."""


def nearest(parameter: Parameter, value: Value) -> Value:
    """The parameter's legal value nearest to a number; of what is no number, or a choice, the value as it is.

    Args:
        parameter: Of whatever kind.
        value: As a program outside proposes it: past the ends of the range, or between two steps.
    """
    legal = parameter.normal(value)
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)  # numpy's too
    if legal is not None or isinstance(parameter, CategoricalParameter) or not number:
        return value if legal is None else legal
    inside = min(max(float(value), parameter.low), parameter.high)
    if isinstance(parameter, IntParameter):
        steps = min(round((inside - parameter.low) / parameter.step), parameter.last_step)
        return parameter.low + steps * parameter.step
    return parameter.from_unit(parameter.to_unit(inside)) if parameter.step else inside


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    problems = []
    if low > high:
        problems.append(FieldViolation("low", f"is {show(low)}, above high = {show(high)}: swap them."))
    if log and low <= 0:
        problems.append(
            FieldViolation("low", f"is {show(low)}: with log = true it must be greater than 0; raise it or drop log.")
        )
    if step is not None and step <= 0:
        problems.append(FieldViolation("step", f"is {show(step)}: it must be greater than 0."))
    elif step is not None and log:
        problems.append(
            FieldViolation("step", f"is {show(step)}: it does not go with log = true; drop one of the two.")
        )
    elif step is not None and 0 < _exact(high) - _exact(low) < _exact(step):
        problems.append(FieldViolation("step", f"is {show(step)}, wider than the range: make it smaller or drop it."))
    elif step is not None and (high - low) / step > _FINEST:
        problems.append(FieldViolation("step", f"is {show(step)}, too fine for the range: make it larger or drop it."))
    if problems:
        raise MistakesError(problems)


def _exact(value: float) -> Decimal:
    """The number as it was written: 0.1 + 2 * 0.1 shall be 0.3."""
    return Decimal(repr(value))


def _check_countable(count: int) -> None:
    if count > _MOST_LEVELS:
        raise InvalidInputError(f"it has {count} values, too many for a grid: give it a larger step, or none.")


def _cell(unit: float, count: int) -> int:
    return min(max(int(unit * count), 0), count - 1)


def _spread(points: int) -> list[float]:
    return [0.5] if points == 1 else [k / (points - 1) for k in range(points)]
