"""Configurations in the unit cube, and others near them, for tuners that perturb what they have.

A configuration is one coordinate in [0, 1] for every parameter of the space, also for those that do not exist at its
point (`Space.from_unit` reads what it needs): so a conditional parameter keeps its place while its parent changes.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np

from fedstep.common.parameters import CategoricalParameter, FloatParameter, IntParameter, Parameter
from fedstep.common.space import Space
from fedstep.common.standard import Scope

Units = Mapping[str, float]
"""Coordinates in [0, 1] by name, of every parameter of a space."""


def client_names(space: Space) -> tuple[str, ...]:
    """The parameters that clients act on, in the order of the space."""
    return tuple(name for name, parameter in space.parameters.items() if parameter.scope is Scope.CLIENT)


def other_names(space: Space) -> tuple[str, ...]:
    """The parameters of the server and of the round, in the order of the space."""
    return tuple(name for name, parameter in space.parameters.items() if parameter.scope is not Scope.CLIENT)


def draw(space: Space, rng: np.random.Generator) -> dict[str, float]:
    """A configuration drawn uniformly."""
    return {name: float(rng.random()) for name in space.ordered}


def near(
    space: Space, centre: Units, radius: float, names: Collection[str], rng: np.random.Generator
) -> dict[str, float]:
    """A configuration drawn from the box around another one.

    Of a range without steps the box reaches `radius` of its width to both sides. Of steps, whole numbers and numbers to
    choose from it reaches the same share of the values, at least one. Choices without an order are drawn anew with the
    chance that the box covers. These are the perturbations of Khodak et al. 2021 (their ε, of every range its width
    times ε) and of Chen et al. 2023, for spaces of any kind.

    Args:
        space: The space.
        centre: The other configuration.
        radius: Half the width of the box, in (0, 1].
        names: The parameters that are moved; the others stay.
        rng: Drawn from as often as there are names.
    """
    moved = dict(centre)
    for name in names:
        moved[name] = _moved(space[name], centre[name], radius, rng)
    return moved


def clipped(space: Space, units: Units, centre: Units, radius: float, names: Collection[str]) -> dict[str, float]:
    """The configuration, brought back into the box of that radius around a centre in the coordinates named."""
    held = dict(units)
    for name in names:
        reach = _reach(space[name], radius)
        held[name] = min(max(units[name], centre[name] - reach, 0.0), centre[name] + reach, 1.0)
    return held


def _moved(parameter: Parameter, unit: float, radius: float, rng: np.random.Generator) -> float:
    count = _count(parameter)
    if count is None:
        return min(max(unit + float(rng.uniform(-radius, radius)), 0.0), 1.0)
    cell = min(int(unit * count), count - 1)
    if not _ordered(parameter):
        drawn = int(rng.integers(count))
        return (drawn + 0.5) / count if rng.random() < 2 * radius else unit
    steps = _steps(count, radius)
    cell = min(max(cell + int(rng.integers(-steps, steps + 1)), 0), count - 1)
    return (cell + 0.5) / count


def _reach(parameter: Parameter, radius: float) -> float:
    """How far the box reaches, in units."""
    count = _count(parameter)
    if count is None:
        return radius
    return _steps(count, radius) / count if _ordered(parameter) else 1.0


def _steps(count: int, radius: float) -> int:
    return max(1, math.ceil(radius * (count - 1)))


def _count(parameter: Parameter) -> int | None:
    """How many values it has; None where they lie as close as on a real range."""
    match parameter:
        case CategoricalParameter():
            return len(parameter.choices)
        case IntParameter():
            return None if parameter.log else parameter.last_step + 1
        case FloatParameter():
            return None if parameter.step is None else parameter.last_step + 1


def _ordered(parameter: Parameter) -> bool:
    """Whether its values have an order: numbers, written down rising or falling."""
    if not isinstance(parameter, CategoricalParameter):
        return True
    numbers = [choice for choice in parameter.choices if isinstance(choice, int | float)]
    if len(numbers) < len(parameter.choices) or isinstance(numbers[0], bool):
        return False
    return numbers in (sorted(numbers), sorted(numbers, reverse=True))
