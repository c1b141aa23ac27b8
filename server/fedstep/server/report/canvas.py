"""What the pictures of studies have in common: size, axes, header and marks.

Drawn with matplotlib's objects alone, without pyplot: it runs in an executor thread of a server, where a figure that
a global registry holds would be shared and never freed.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from fedstep.server.report.courses import BEST, Look

WIDTH, HEADER = 11.0, 1.5
"""Inches: the whole width, and the height of the header."""

RIGHT = 0.35
"""Inches left free at the right."""

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"

CROWD = 30
"""From this many trials on, lines are thinner and marks smaller."""

_DOTS_PER_INCH = 130
_LABEL_HEIGHT, _LABEL_LETTER = 0.16, 0.07
"""Inches that a label beside a line's end takes, and each of its letters; lines that cross it stay off it by a halo."""

_SYMBOL = 0.45
"""Inches that an entry of a legend takes beside its letters."""


@dataclass(frozen=True)
class EndLabel:
    """A few letters beside the end of a line.

    Attributes:
        text: The letters.
        at: Where the line ends, on the horizontal axis.
        height: The same on the vertical one, from 0 to 1 of its length.
        color: As the line's.
        size: In points.
        strong: It is the one to look for.
    """

    text: str
    at: float
    height: float
    color: str
    size: float = 8.5
    strong: bool = False


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty picture.

    Args:
        height: In inches.
        width: The same.
    """
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes it as a PNG; a reader of the file sees the old picture or the new one, never half of it.

    Raises:
        OSError: The file cannot be written.
    """
    with written_whole(path) as half:
        figure.savefig(half, format="png")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a file to write, which takes the place of this one in the end; where that fails, it is taken away."""
    half = path.with_name(path.name + ".part")
    try:
        yield half
        os.replace(half, path)
    except BaseException:
        with suppress(OSError):
            half.unlink()
        raise


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the upper left corner."""
    across, down = figure.get_size_inches()
    axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=0, pad=4)
    return axes


def write_header(figure: Figure, name: str, outcome: str, settings: str, cost: str) -> None:
    """What came out, in words: the study, its result, the best hyper-parameters, what it cost."""
    inches = figure.get_size_inches()[1]
    left, right = 0.35 / WIDTH, 1 - RIGHT / WIDTH

    def write(text: str, down: float, color: str, size: float, weight: str = "normal", at_right: bool = False) -> None:
        figure.text(
            right if at_right else left,
            1 - down / inches,
            text,
            color=color,
            fontsize=size,
            fontweight=weight,
            ha="right" if at_right else "left",
            parse_math=False,
        )

    write(name, 0.42, INK, 16, "bold")
    write(cost, 0.42, FAINT, 9.5, at_right=True)
    write(outcome, 0.71, BEST.color, 11.5, "bold")
    write(settings, 0.94, INK, 9.5)


def mark(axes: Axes, across: float, up: float, look: Look, trials: int) -> None:
    """The mark that says how a trial ended."""
    cross = look.mark == "x"
    axes.plot(
        [across],
        [up],
        look.mark,
        color=look.color,
        markersize=14 if look is BEST else 6 if trials < CROWD else 5,
        alpha=1.0 if look is BEST else 0.75,
        markeredgewidth=1.4 if cross else 0.6,
        markeredgecolor=look.color if cross else "white",
        zorder=look.order + 0.5,
        clip_on=False,
    )


def label_ends(axes: Axes, labels: Iterable[EndLabel]) -> None:
    """Writes labels beside the ends of lines, where one does not cover another: the first ones have precedence.

    Args:
        axes: With their horizontal limits set.
        labels: In the order of their importance.
    """
    across, down = axes.bbox.width / _DOTS_PER_INCH, axes.bbox.height / _DOTS_PER_INCH
    low, high = axes.get_xlim()
    taken: list[tuple[float, float, float]] = []
    for label in labels:
        left, up = across * (label.at - low) / (high - low), down * label.height
        right = left + _LABEL_LETTER * (1 + len(label.text))
        if any(left < end and begin < right and abs(up - there) < _LABEL_HEIGHT for begin, end, there in taken):
            continue
        taken.append((left, right, up))
        axes.annotate(
            label.text,
            (label.at, label.height),
            xycoords=("data", "axes fraction"),
            xytext=(9 if label.strong else 6, 0),
            textcoords="offset points",
            va="center",
            color=label.color,
            fontsize=label.size,
            fontweight="bold" if label.strong else "normal",
            zorder=8,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def count_rounds(axes: Axes) -> None:
    """Whole rounds along the horizontal axis, as many of them named as there is room for."""
    room = int(1.7 * axes.bbox.width / _DOTS_PER_INCH)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=max(4, min(16, room)), integer=True, min_n_ticks=1))


def write_legend(axes: Axes, handles: Sequence[Line2D], up: float, tight: bool = False) -> None:
    """What the colours mean, above the axes: in one line where it is wide enough.

    Args:
        axes: The axes.
        handles: A line as it is drawn for each entry.
        up: Where, with the upper edge of the axes at 1.
        tight: There are many entries.
    """
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, up),
        borderaxespad=0.0,
        borderpad=0.0,
        ncols=_columns(axes, handles),
        frameon=False,
        fontsize=8.8 if tight else 9,
        labelcolor=INK,
        handlelength=1.8 if tight else 2.2,
        columnspacing=1.3 if tight else 1.8,
    )


def _columns(axes: Axes, handles: Sequence[Line2D]) -> int:
    """Entries of a legend side by side: all of them, or as many as the axes are wide for."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    all_of_them = sum(_SYMBOL + _LABEL_LETTER * len(str(handle.get_label())) for handle in handles)
    width = axes.bbox.width / _DOTS_PER_INCH
    return len(handles) if all_of_them <= width else max(1, int(width / (_SYMBOL + _LABEL_LETTER * longest)))
