"""What the simulation's commands read from a command line."""

import math
from typing import Any

import click


class Finite(click.FloatRange):
    """A number within bounds, if there are any; nan and infinity are none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of a text."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number: give one such as 0.5.", param, ctx)
        return number


spread_option = click.option(
    "--speed-spread",
    default=0.5,
    show_default=True,
    type=Finite(0, 5),
    help="How much clients differ in speed: the standard deviation of its logarithm.",
)
"""As `SpeedModel` allows, which is not imported for it: `fedstep --help` needs no NumPy."""
