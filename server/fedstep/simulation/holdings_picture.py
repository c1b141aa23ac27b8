"""The picture of who has what: clients by classes, and beside it how many samples each client has."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedstep.server.report.canvas import (
    FAINT,
    GRID,
    HEADER,
    INK,
    RIGHT,
    WIDTH,
    add_axes,
    new_figure,
    save,
    write_header,
)
from fedstep.simulation.holdings import Holdings

_LEFT, _BARS, _GAP, _BELOW, _SCALE = 0.85, 2.4, 0.25, 0.55, 0.12
"""Inches: left of the map, the bars' width, between the two, below both, and the colour scale's height."""

_ROW, _LOWEST, _HIGHEST = 0.3, 2.0, 8.0
"""Inches: a client's row where there is room, and the least and the most of the map."""

_MOST_NUMBERED = 400
"""Cells up to which their counts are written into them."""

_MOST_NAMED = 30
_COLORS = LinearSegmentedColormap.from_list("holdings", ["#e3f0f7", "#7fb6d3", "#2c7fb0", "#0b3c5d"])
_TRAIN, _VALIDATION = "#2c7fb0", "#f0a868"


def draw_holdings(path: Path, title: str, options: str, holdings: Holdings) -> None:
    """Draws it as a PNG. White is none; the darker, the more, by the square root, so that few samples are seen too.

    Args:
        path: The file to write, in a folder that exists.
        title: The task's name.
        options: What it was given, in words.
        holdings: Who has what.

    Raises:
        OSError: The file cannot be written.
    """
    clients = len(holdings.clients)
    height = min(max(_LOWEST, _ROW * clients), _HIGHEST)
    figure = new_figure(HEADER + height + _BELOW)
    write_header(figure, title, holdings.summary(), options, f"{clients:,} clients" if clients > 1 else "1 client")
    wide = WIDTH - _LEFT - _GAP - _BARS - RIGHT
    cells = add_axes(figure, _LEFT, HEADER, wide, height)
    _draw_cells(figure, cells, holdings)
    bars = add_axes(figure, _LEFT + wide + _GAP, HEADER, _BARS, height)
    _draw_bars(bars, holdings)
    for axes in (cells, bars):
        axes.set_ylim(clients - 0.5, -0.5)
    save(figure, path)


def _draw_cells(figure: Figure, axes: Axes, holdings: Holdings) -> None:
    """A row a client, a column a class."""
    counts = holdings.counts
    clients, classes = counts.shape
    most = max(int(counts.max()), 2)
    colors = PowerNorm(0.5, vmin=1, vmax=most)
    image = axes.imshow(
        np.ma.masked_equal(counts, 0), cmap=_COLORS, norm=colors, aspect="auto", interpolation="nearest"
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(GRID)
    axes.set_xlabel("class", color=FAINT, fontsize=9.5)
    axes.set_ylabel("client", color=FAINT, fontsize=9.5)
    columns = range(0, classes, 1 + classes // (_MOST_NAMED + 1))
    axes.set_xticks(columns, [str(holdings.classes[column]) for column in columns])
    every = 1 if clients <= _MOST_NAMED else clients // 10
    rows = sorted({0, *range(every - 1, clients, every)})
    axes.set_yticks(rows, [str(row + 1) for row in rows])
    if counts.size <= _MOST_NUMBERED and classes <= _MOST_NAMED:
        _write_counts(axes, counts, most)
    across, down = figure.get_size_inches()
    place = axes.get_position()
    width = 2.2 / across
    scale = figure.add_axes((place.x1 - width, place.y1 + 0.12 / down, width, _SCALE / down))
    bar = figure.colorbar(image, cax=scale, orientation="horizontal")
    bar.outline.set_visible(False)
    ticks = sorted({1, round(most / 4), most})
    bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    scale.minorticks_off()
    scale.tick_params(
        colors=FAINT, labelsize=8, length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    scale.text(-0.04, 0.5, "samples", transform=scale.transAxes, ha="right", va="center", color=FAINT, fontsize=8.5)


def _write_counts(axes: Axes, counts: np.ndarray, most: int) -> None:
    for (client, label), count in np.ndenumerate(counts):
        if count:
            axes.text(
                label,
                client,
                str(count),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if count > most / 5 else INK,
            )


def _draw_bars(axes: Axes, holdings: Holdings) -> None:
    """How many samples each client has, those for validation at the end."""
    rows, sizes = np.arange(len(holdings.clients)), holdings.sizes
    train = sizes - holdings.validation
    thick = 0.8 if len(rows) <= _MOST_NAMED else 1.0
    axes.barh(rows, train, height=thick, color=_TRAIN, linewidth=0, label="training")
    axes.barh(rows, holdings.validation, left=train, height=thick, color=_VALIDATION, linewidth=0, label="validation")
    axes.set_xlabel("samples", color=FAINT, fontsize=9.5)
    axes.set_xlim(0, max(1.0, float(sizes.max())) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.tick_params(labelleft=False)
    axes.grid(visible=False, axis="y")
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=1.0,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
