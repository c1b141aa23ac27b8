"""What the simulation's commands read from a command line."""

import math

import click


class Finite(click.ParamType[float]):
    """A number that is neither nan nor infinite.

    Args:
        least: The smallest one.
        most: The greatest.
    """

    name = "number"

    def __init__(self, least: float = -math.inf, most: float = math.inf) -> None:
        self.least = least
        self.most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of a text."""
        number = click.FLOAT(str(value), param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number: give one such as 0.5.", param, ctx)
        if not self.least <= number <= self.most:
            self.fail(f"{value} is out of range: give a number from {self.least:g} to {self.most:g}.", param, ctx)
        return number


spread_option = click.option(
    "--speed-spread",
    default=0.5,
    show_default=True,
    type=Finite(0, 5),
    help="How much clients differ in speed: the standard deviation of its logarithm, 0 to 5.",
)
"""As `SpeedModel` allows, which is not imported for it: `fedstep --help` needs no NumPy."""
