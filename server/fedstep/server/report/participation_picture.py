"""The lowest part of a study's picture: how often each client's training was taken, and the loss on its data.

Clients stand side by side, the one least trained first, so that a few can be told apart and many make a shape.
"""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedstep.server.report.canvas import FAINT, GRID, INK, RIGHT, add_axes, write_legend
from fedstep.server.report.participation import Group, Share, groups, left_out, participation_text
from fedstep.server.report.scales import ValueRange
from fedstep.server.report.words import short

_TITLE, _BARS, _BETWEEN, _DOTS, _BELOW = 0.55, 1.15, 0.2, 0.95, 0.75
"""Inches: of the words above, how often each was taken, the space between, the losses, and the names below."""

_NAMED = 24
"""From more clients than these no names are written."""

_APART = 60
"""From more clients than these the bars touch."""

_LEAST_RANGE = (0.8, 1.25)
"""Losses over their mean that are shown at least: a narrower range would make much of little."""

_TAKEN, _LEFT_OUT, _ASKED = "#1c7ed6", "#c92a2a", "#ced4da"
_LETTER = 0.075
"""Inches, about, that a letter of a name takes."""

_WIDE_LETTER = 0.065
"""And one of the words above."""


def participation_height(shares: Sequence[Share]) -> float:
    """Inches that it takes: 0 where nobody was asked."""
    if not any(share.asked for share in shares):
        return 0.0
    return _TITLE + _BARS + _BELOW + (_BETWEEN + _DOTS) * _measured(shares)


def draw_participation(figure: Figure, shares: Sequence[Share], left: float, top: float, in_words: bool = True) -> None:
    """Draws it.

    Args:
        figure: Where.
        shares: Every client's part, at least one of them asked.
        left: The left edge of its axes, in inches from the picture's.
        top: Its upper edge.
        in_words: Whether with a sentence above it.
    """
    out = left_out(shares)  # they are the first in this order, too
    ordered = sorted(shares, key=lambda share: (share.work, share.asked, share.client))
    width = figure.get_size_inches()[0] - left - RIGHT
    axes = add_axes(figure, left, top + _TITLE, width, _BARS)
    said = participation_text(shares, named=False) if in_words else ""
    axes.set_title(fill(said, int(width / _WIDE_LETTER)), loc="left", pad=21, color=INK, fontsize=9.5, parse_math=False)
    _draw_counts(axes, ordered, len(out))
    lowest = axes
    if _measured(shares):
        lowest = add_axes(figure, left, top + _TITLE + _BARS + _BETWEEN, width, _DOTS)
        _draw_losses(lowest, ordered, len(out), groups(shares))
        axes.tick_params(labelbottom=False)
    for each in {axes, lowest}:
        each.set_xlim(-0.6, len(ordered) - 0.4)
        each.grid(visible=False, axis="x")
        each.set_xticks([])
    _name(lowest, ordered, width)


def _measured(shares: Sequence[Share]) -> bool:
    return any(share.losses for share in shares)


def _draw_counts(axes: Axes, ordered: Sequence[Share], out: int) -> None:
    """How often each was asked, and over it how many whole trainings were taken, parts by their steps."""
    asked, taken = [share.asked for share in ordered], [share.work for share in ordered]
    count = len(ordered)
    for values, color, first, last in (
        (asked, _ASKED, 0, count),
        (taken, _LEFT_OUT, 0, out),
        (taken, _TAKEN, out, count),
    ):
        if count <= _APART:
            axes.bar(range(first, last), values[first:last], 0.75, color=color, linewidth=0)
        elif first < last:  # one shape, where bars would be as many as clients
            edges = [place - 0.5 for place in range(first, last + 1)]
            axes.stairs(values[first:last], edges, fill=True, color=color, linewidth=0)
    axes.set_ylim(0, max(*asked, 1) * 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    axes.set_ylabel("trainings", color=FAINT, fontsize=9)
    entries = [(_TAKEN, "taken"), (_ASKED, "asked for, not done or not taken")]
    if out:
        entries.insert(1, (_LEFT_OUT, f"taken of the {out} left out" if out > 1 else "taken of the one left out"))
    handles = [
        Line2D([], [], color=color, marker="s", markersize=7, linestyle="", label=label) for color, label in entries
    ]
    write_legend(axes, handles, up=1.04, tight=True)


def _draw_losses(axes: Axes, ordered: Sequence[Share], out: int, both: tuple[Group, Group]) -> None:
    """The loss on each one's data over the mean, and the mean of those left out and of the others."""
    losses = [(at, loss) for at, share in enumerate(ordered) if (loss := share.relative_loss) is not None]
    means = [group.relative_loss for group in both if group.relative_loss is not None]
    shown = ValueRange.of([loss for _, loss in losses] + [*_LEAST_RANGE], [*means, *_LEAST_RANGE], minimize=True)
    shown.apply(axes, ticks=4)
    axes.axhline(1.0, color=FAINT, linewidth=0.8, zorder=1)
    size = 6.0 if len(ordered) <= _NAMED else 4.0 if len(ordered) <= _APART else 2.6
    edges, spans = (0, out, len(ordered)), zip((_LEFT_OUT, _TAKEN), both, strict=True)
    for (color, group), first, last in zip(spans, edges, edges[1:], strict=False):
        own = [(at, shown.clip(loss)) for at, loss in losses if first <= at < last]
        axes.plot(
            [at for at, _ in own],
            [loss for _, loss in own],
            "o",
            color=color,
            markersize=size,
            markeredgewidth=0,
            alpha=0.75,
            clip_on=False,
        )
        if group.relative_loss is not None and out:
            axes.plot([first - 0.5, last - 0.5], [group.relative_loss] * 2, color=color, linewidth=1.4, alpha=0.8)
    axes.set_ylabel("loss on their\ndata / mean", color=FAINT, fontsize=9)


def _name(axes: Axes, ordered: Sequence[Share], width: float) -> None:
    """The clients' names where there is room, and what the axis says."""
    count = len(ordered)
    if count <= _NAMED:
        room = int(width / count / _LETTER) - 1
        tilted = any(len(share.client) > room for share in ordered)
        labels = [short(share.client, 14 if tilted else max(room, 2)) for share in ordered]
        axes.set_xticks(range(count), labels, parse_math=False)
        for label in axes.get_xticklabels() if tilted else ():
            label.set(rotation=25, ha="right", rotation_mode="anchor", fontsize=8)
        return
    axes.set_xlabel(f"{count:,} clients, the least trained first", color=FAINT, fontsize=9.5)
    axes.spines["bottom"].set_color(GRID)
