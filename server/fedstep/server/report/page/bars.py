"""Bars: named ones one below the other, and values in a row that grow into a shape where they are many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedstep.server.report.canvas import FAINT, INK, add_axes, count_rounds, new_figure
from fedstep.server.report.courses import COMPLETED
from fedstep.server.report.words import short

_HEIGHT, _EDGE = 0.3, 0.1
"""Inches, of a bar and above and below all of them."""

_NAME_LETTER, _SAID_LETTER = 0.072, 0.07
"""Inches, about, that a letter of a name takes, and one of what is written at a bar's end."""

_APART = 60
"""From more values than these the bars touch."""


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        name: What it stands for.
        value: How long it is.
        said: What is written at its end.
        color: Its own.
    """

    name: str
    value: float
    said: str
    color: str


def draw_bars(bars: Sequence[Bar], width: float, letters: int) -> Figure:
    """Bars one below the other.

    Args:
        bars: At least one.
        width: Of the figure, in inches.
        letters: Of a name, at most.
    """
    left = 0.3 + _NAME_LETTER * min(letters, max(len(bar.name) for bar in bars))
    right = 0.3 + _SAID_LETTER * max(len(bar.said) for bar in bars)
    figure = new_figure(2 * _EDGE + _HEIGHT * len(bars), width)
    axes = add_axes(figure, left, _EDGE, width - left - right, _HEIGHT * len(bars))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    places = range(len(bars))
    axes.barh(places, [bar.value for bar in bars], 0.62, color=[bar.color for bar in bars], linewidth=0)
    axes.set_yticks(places, [short(bar.name, letters) for bar in bars], parse_math=False, fontsize=9, color=INK)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, max(bar.value for bar in bars) or 1)
    for place, bar in zip(places, bars, strict=True):
        axes.annotate(
            bar.said,
            (bar.value, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=9,
            parse_math=False,
        )
    return figure


def draw_values(axes: Axes, values: Sequence[float], said: str) -> None:
    """One bar a value, or one shape where they are many."""
    count = len(values)
    if count <= _APART:
        axes.bar(range(1, count + 1), values, 0.75, color=COMPLETED.color, linewidth=0)
    else:
        axes.stairs(values, [0.5 + at for at in range(count + 1)], fill=True, color=COMPLETED.color, linewidth=0)
    axes.set_xlim(0.4, count + 0.6)
    highest = max(values)
    axes.set_ylim(0, highest * 1.06 if highest > 0 and math.isfinite(highest) else 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=1))
    count_rounds(axes)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(said, color=FAINT, fontsize=9)
