"""What the simulation's commands read from a command line."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fedstep.common.errors import InvalidInputError
from fedstep.common.handicap_options import BandwidthType, DurationType, SlowdownType, StallsType


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

_SHARE, _AWAY_FOR_S = 1.0, 600.0

_HARDSHIP = (
    click.option("--slow-share", default=_SHARE, type=Finite(0, 1), help="The part of the clients that is made slow."),
    click.option(
        "--slowdown", default=1.0, type=SlowdownType(), help="A slow client's steps take so many times as long."
    ),
    click.option("--stall-every", "stalls", type=StallsType(), help="A slow client stands still, such as 30s:10s."),
    click.option("--bandwidth", default=math.inf, type=BandwidthType(), help="A slow client's, each way, as 2MiB/s."),
    click.option("--away", default=0.0, type=Finite(0, 0.99), help="The part of the clients away at any time, as 0.2."),
    click.option("--away-for", default=_AWAY_FOR_S, type=DurationType(), help="How long in the mean.  [default: 10m]"),
    click.option(
        "--trace",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Absences from a CSV instead: client,away_from_s,away_until_s.",
    ),
)


def _check_use(slow: bool, slow_share: float, away: float, away_for: float, trace: Path | None) -> None:
    """Raises where an option would change nothing.

    Raises:
        InvalidInputError: It would.
    """
    if slow_share != _SHARE and not slow:
        raise InvalidInputError(
            f"--slow-share {slow_share:g} makes nobody slow by itself: add --slowdown, --stall-every or --bandwidth."
        )
    if away_for != _AWAY_FOR_S and not away:
        raise InvalidInputError("--away-for says how long absences are, and there are none: add --away, such as 0.2.")
    if trace is not None and away:
        raise InvalidInputError(f"--trace {trace} says who is away when, and so does --away {away:g}: leave one out.")


def hardship_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for what holds clients up, handed to the command as one argument `hardship`."""

    @functools.wraps(command)
    def collected(
        *arguments: Any,
        slow_share: float,
        slowdown: float,
        stalls: tuple[float, float] | None,
        bandwidth: float,
        away: float,
        away_for: float,
        trace: Path | None,
        **others: Any,
    ) -> None:
        # Late: NumPy.
        from fedstep.common.handicap import Handicap
        from fedstep.common.pauses import NEVER, Pauses
        from fedstep.common.trace import read_trace
        from fedstep.simulation.hardship import Hardship

        slow = Handicap(slowdown, Pauses.every(*stalls) if stalls else NEVER, bandwidth)
        _check_use(slow != Handicap(), slow_share, away, away_for, trace)
        hardship = Hardship(slow, slow_share, away, away_for, read_trace(trace) if trace else {})
        command(*arguments, hardship=hardship, **others)

    for option in reversed(_HARDSHIP):
        collected = option(collected)
    return collected
