"""The axes of a picture: the range of values worth showing, and a parameter's own scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from fedstep.common.space import CategoricalParameter, FloatParameter, IntParameter
from fedstep.server.report.words import say

_ENOUGH_FOR_QUARTILES = 8
_NEAR_ONE = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
_ROOM = 0.06
"""Left free beyond the outermost value, as a share of the range."""


@dataclass(frozen=True)
class ValueRange:
    """The values that an axis shows; what lies outside is drawn at its edge.

    Attributes:
        low: At the lower edge.
        high: At the upper edge.
        log: On a logarithmic scale.
        to_one: On a logarithmic scale of the distance to 1, as of an accuracy's error.
    """

    low: float
    high: float
    log: bool
    to_one: bool = False

    @classmethod
    def of(
        cls, values: Sequence[float], must_show: Sequence[float], minimize: bool, open_up: bool = False
    ) -> "ValueRange":
        """The range of the bulk of the values, so that one trial that blew up does not press the others flat.

        Args:
            values: Finite, in any order.
            must_show: Those of them that must be inside: the best trial's.
            minimize: Less is better. Such values, mostly losses, get a log scale where they span much of one.
            open_up: Values under 1 of which more is better, mostly accuracies, get a log scale of their distance to
                1 where they span much of that.
        """
        if not values:
            return cls(0.0, 1.0, log=False)
        low, high = min(values), max(values)
        if len(values) >= _ENOUGH_FOR_QUARTILES:
            first, _, third = quantiles(values, n=4)
            reach = 3 * (third - first) or abs(third) or 1.0
            low, high = max(low, first - reach), min(high, third + reach)
        low, high = min(low, *must_show, math.inf), max(high, *must_show, -math.inf)
        if minimize and low > 0 and high / low > 6:
            room = (high / low) ** _ROOM
            return cls(low / room, high * room, log=True)
        if open_up and not minimize and low >= 0 and high < 1 and (1 - low) / (1 - high) > 6:
            room = ((1 - low) / (1 - high)) ** _ROOM
            return cls(1 - (1 - low) * room, 1 - (1 - high) / room, log=False, to_one=True)
        room = _ROOM * (high - low) or _ROOM * abs(high) or 0.5
        return cls(low - room, high + room, log=False)

    def clip(self, value: float) -> float:
        """The value, or the edge that it lies beyond."""
        return min(max(value, self.low), self.high)

    def height(self, value: float) -> float:
        """Where a value stands between the lower edge, 0, and the upper one, 1."""
        here = self.clip(value)
        if self.log:
            return math.log(here / self.low) / math.log(self.high / self.low)
        if self.to_one:
            return math.log((1 - self.low) / (1 - here)) / math.log((1 - self.low) / (1 - self.high))
        return (here - self.low) / (self.high - self.low)

    def apply(self, axes: Axes, ticks: int) -> None:
        """Makes it the vertical axis, with about that many ticks."""
        if self.to_one:
            axes.set_yscale("function", functions=(_from_error, _to_error))
            axes.set_ylim(self.low, self.high)
            axes.set_yticks([tick for tick in _NEAR_ONE if self.low <= tick <= self.high])
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
            return
        axes.set_yscale("log" if self.log else "linear")
        axes.set_ylim(self.low, self.high)
        if not self.log:
            axes.yaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 5, 10]))
            return
        narrow = self.high / self.low < 100
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())


def _from_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values under 1 on the logarithmic scale of their distance to it."""
    return -np.log10(np.maximum(1.0 - np.asarray(values), 1e-12))


def _to_error(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The other way round."""
    return 1.0 - 10.0 ** -np.asarray(places)


def set_choices(axes: Axes, parameter: CategoricalParameter, width: float) -> None:
    """A place for every choice on the horizontal axis, the names tilted where they have no room side by side.

    Args:
        axes: The axes.
        parameter: Its choices stand at 0, 1, 2, …
        width: Of the axes, in inches.
    """
    count = len(parameter.choices)
    axes.set_xlim(-0.6, count - 0.4)
    room = int(width * 13 / count) - 1
    tilted = any(len(say(choice, 99)) > room for choice in parameter.choices)
    labels = [say(choice, 11 if tilted else room) for choice in parameter.choices]
    axes.set_xticks(range(count), labels, parse_math=False)
    if tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor", fontsize=8)


def set_numbers(axes: Axes, parameter: FloatParameter | IntParameter) -> None:
    """The whole range of a parameter on the horizontal axis, logarithmic where it is searched so."""
    low, high, whole = float(parameter.low), float(parameter.high), isinstance(parameter, IntParameter)
    if not parameter.log or low == high:
        room = 0.05 * (high - low) or 0.5
        axes.set_xlim(low - room, high + room)
        nbins = 6 if whole and high - low <= 6 else 4
        axes.xaxis.set_major_locator(MaxNLocator(nbins=nbins, integer=whole, min_n_ticks=1))
        return
    ratio = high / low
    axes.set_xscale("log")
    axes.set_xlim(low / ratio**0.05, high * ratio**0.05)
    if ratio >= 1000:
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
    else:
        # Few powers of ten lie inside: the two ends and a round number between them say more.
        middle = float(f"{math.sqrt(low * high):.{0 if ratio > 10 else 1}e}")
        ticks = sorted({low, float(round(middle)) if whole else middle, high})
        axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
