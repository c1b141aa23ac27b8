"""The grid over a space: every distinct valid point, by its index.

Not a plain product: a conditional parameter counts only where it exists. Points are counted, not listed,
so a grid of millions costs no memory.
"""

from collections.abc import Mapping, Sequence
from math import prod

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import Parameter

_MOST_COUNTS = 100_000


class Grid:
    """All points of a space whose ranges are cut into levels. The first parameter varies slowest.

    Attributes:
        size: How many points there are.
    """

    def __init__(self, parameters: Mapping[str, Parameter], points: int) -> None:
        """Counts the points.

        Args:
            parameters: By name, parents before the parameters that depend on them.
            points: Levels that a range without a step is cut into, at least 1.

        Raises:
            InvalidInputError: A range has too many steps, or the conditions are too many to count.
        """
        if points < 1:
            raise InvalidInputError(f"A grid of {points} points is empty: ask for at least 1 per range.")
        self._parameters = parameters
        self._names = list(parameters)
        self._levels = _levels(parameters, points)
        # Of each position: the parents before it that something from there on still asks for.
        self._asked = [
            tuple(p for p in self._names[:i] if any(p in parameters[later].when for later in self._names[i:]))
            for i in range(len(self._names) + 1)
        ]
        self._counts: dict[tuple[int, tuple[Value | None, ...]], int] = {}
        self.size = self._count(0, {})

    def point(self, index: int) -> dict[str, Value]:
        """The point of that index.

        Raises:
            IndexError: The index is not in 0 to size - 1.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"the grid has {self.size} points and no number {index}")
        chosen: dict[str, Value] = {}
        for i, name in enumerate(self._names):
            if not exists(self._parameters[name], chosen):
                continue
            for level in self._levels[name]:
                count = self._count(i + 1, {**chosen, name: level})
                if index < count:
                    chosen[name] = level
                    break
                index -= count
        return chosen

    def _count(self, position: int, chosen: Mapping[str, Value]) -> int:
        """How many points go on from the values chosen for the parameters before that position."""
        if not self._asked[position] and not any(self._parameters[name].when for name in self._names[position:]):
            return prod(len(self._levels[name]) for name in self._names[position:])
        key = (position, tuple(chosen.get(name) for name in self._asked[position]))
        if key not in self._counts:
            if len(self._counts) >= _MOST_COUNTS:
                raise InvalidInputError(
                    "The conditions of the space make too many cases for a grid: use fewer, or the tuner `random`."
                )
            self._counts[key] = self._count_uncached(position, chosen)
        return self._counts[key]

    def _count_uncached(self, position: int, chosen: Mapping[str, Value]) -> int:
        name = self._names[position]
        if not exists(self._parameters[name], chosen):
            return self._count(position + 1, chosen)
        levels = self._levels[name]
        if name not in self._asked[position + 1]:
            return len(levels) * self._count(position + 1, chosen)
        return sum(self._count(position + 1, {**chosen, name: level}) for level in levels)


def exists(parameter: Parameter, chosen: Mapping[str, Value]) -> bool:
    """Whether the parameter exists beside these values of its parents; a parent that does not exist is absent."""
    return all(name in chosen and chosen[name] in values for name, values in parameter.when.items())


def _levels(parameters: Mapping[str, Parameter], points: int) -> dict[str, Sequence[Value]]:
    """Each parameter's levels; those of a parent include every value that a condition names."""
    levels: dict[str, Sequence[Value]] = {}
    for name, parameter in parameters.items():
        try:
            own = parameter.levels(points)
        except InvalidInputError as error:
            violation = FieldViolation(f"space.{name}", error.message)
            raise InvalidInputError(f"space.{name}: {error.message}", [violation]) from None
        named = {value for other in parameters.values() for value in other.when.get(name, ())} - set(own)
        levels[name] = [*own, *named] if not named else sorted([*own, *named], key=parameter.to_unit)
    return levels
