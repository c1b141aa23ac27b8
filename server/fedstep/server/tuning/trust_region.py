"""The neighbourhood of the incumbent in which challengers are looked for."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.parameters import CategoricalParameter
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.window import Window

Displacement = Mapping[str, Value]
"""A step away from the incumbent by parameter: a number in units of the region's width, or the choice itself."""

NEW_WIDTH = 0.5
"""The width for a parameter that does not exist at the incumbent: around its middle, all of it."""


@dataclass(frozen=True)
class TrustRegion:
    """A box around a point of the unit cube, inside the window.

    Attributes:
        scales: Of the study.
        center: The incumbent.
        rho: The width, in the unit cube.
        window: What the probe left of the space.
        frozen: Parameters that do not move.
    """

    scales: Scales
    center: Hyperparameters
    rho: float
    window: Window
    frozen: Collection[str] = ()

    def at(self, displacement: Displacement) -> dict[str, Value]:
        """The point of the space that is so far from the incumbent; steps over an edge of the cube are reflected.

        Args:
            displacement: Of parameters that it does not name, nothing moves.
        """
        point = self.window.pulled_in(self._at(displacement), self.scales)
        # The window's edge is found by logarithms: what is pulled back to where it was has not moved.
        return {
            name: self.center[name] if _same(value, self.center.get(name)) else value for name, value in point.items()
        }

    def _at(self, displacement: Displacement) -> dict[str, Value]:
        units = self.scales.space.to_unit(self.center)
        point: dict[str, Value] = {}
        for name, parameter in self.scales.space.active(point):
            step = None if name in self.frozen else displacement.get(name)
            if isinstance(parameter, CategoricalParameter):
                point[name] = self.center.get(name, parameter.choices[0]) if step is None else step
            elif name in units and not step:
                point[name] = self.center[name]  # exactly: to the unit cube and back costs the last digit
            else:
                width = self.rho if name in units else NEW_WIDTH
                unit = _reflected(units.get(name, 0.5) + width * float(step or 0.0))
                point[name] = parameter.from_unit(unit)
        return point


def _same(value: Value, other: Value | None) -> bool:
    if isinstance(value, bool | str) or isinstance(other, bool | str) or other is None:
        return value == other
    return math.isclose(value, other, rel_tol=1e-9)


def _reflected(unit: float) -> float:
    inside = unit % 2.0
    return 2.0 - inside if inside > 1.0 else inside
