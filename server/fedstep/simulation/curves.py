"""The curves of a comparison: the model one would deliver, over what was spent. As a picture and as CSV."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy import stats

from fedstep.common.spec import Objective
from fedstep.server.report.canvas import save, written_whole
from fedstep.simulation.outcome import Outcome

Over = Literal["rounds", "seconds"]
"""What a curve runs over."""

Series = np.ndarray[tuple[int], np.dtype[np.float64]]
"""float64 [points]."""

_POINTS = 40
_LEFT, _AXES, _HEIGHT = 0.75, 6.2, 5.2
"""Inches: the room left of the axes, their width, and the height of the picture."""

_LETTER = 0.078
"""Inches a letter of a line's name takes, about."""

_COLORS = (
    *("#d1495b", "#00798c", "#e07a2f", "#5c4d7d", "#4f9a6e"),
    *("#2e4057", "#b8860b", "#7f8a97", "#9c6644", "#c06bb3"),
)
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 1.5), (1.5, 1.5))
_INK, _FAINT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_SETTLED = 1 / 6
"""The vertical axis begins where the middle tuner stands after this share of the budget; what is below is cut."""


@dataclass(frozen=True)
class Curve:
    """One tuner's mean over its seeds.

    Attributes:
        tuner: As `--tuners` wrote it.
        seeds: How many.
        x: Rounds or virtual seconds spent.
        mean: Over the seeds.
        error: Standard error of the mean; 0 for a single seed.
        worst: The worst seed's value at each point.
        best: The best seed's.
    """

    tuner: str
    seeds: int
    x: Series
    mean: Series
    error: Series
    worst: Series
    best: Series


def curves_of(
    outcomes: Sequence[Outcome], tuners: Sequence[str], objective: Objective, over: Over = "rounds"
) -> list[Curve]:
    """The curves of one budget, in the tuners' order, all at the same points.

    A seed's value between two of its points is that of the earlier one: it is the model one would have had.
    """
    found = []
    reach = max((_place(o, over)[-1] for o in outcomes if o.curve), default=0.0)
    x = np.linspace(0.0, reach or 1.0, _POINTS + 1)
    for tuner in tuners:
        values = [_values_at(o, x, over) for o in outcomes if o.key.tuner == tuner and o.curve]
        if not values:
            continue
        rows = np.vstack(values)
        low, high = rows.min(axis=0), rows.max(axis=0)
        worst, best = (low, high) if objective.direction == "maximize" else (high, low)
        error = stats.sem(rows, axis=0) if len(rows) > 1 else np.zeros_like(x)
        found.append(Curve(tuner, len(rows), x, rows.mean(axis=0), error, worst, best))
    return found


def write_curves(path: Path, curves: Sequence[Curve], budget: int, over: Over) -> None:
    """The curves as CSV, a point a line.

    Raises:
        OSError: The file cannot be written.
    """
    with written_whole(path) as half, half.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["budget", "tuner", over, "seeds", "mean", "standard_error", "worst", "best"])
        for curve in curves:
            columns = (curve.x, curve.mean, curve.error, curve.worst, curve.best)
            for x, *values in zip(*columns, strict=True):
                writer.writerow([budget, curve.tuner, f"{x:.6g}", curve.seeds, *(f"{value:.6g}" for value in values)])


def draw_curves(
    path: Path,
    curves: Sequence[Curve],
    title: str,
    objective: Objective,
    over: Over,
    target: float | None = None,
    log: bool = False,
) -> None:
    """Draws the curves as a PNG: the mean over the seeds, and a band of one standard error on each side.

    The names stand at the ends of the lines, in their order there.

    Args:
        path: The file to write.
        curves: As `curves_of` gives them, at least one.
        title: One line above.
        objective: What the vertical axis is.
        over: What the horizontal axis is.
        target: Drawn as a thin line; None for none.
        log: A logarithmic horizontal axis.

    Raises:
        OSError: The file cannot be written.
    """
    width = _LEFT + _AXES + 0.5 + _LETTER * max(len(_name(curve)) for curve in curves)
    figure = Figure(figsize=(width, _HEIGHT), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT / width, 0.6 / _HEIGHT, _AXES / width, 1 - 1.15 / _HEIGHT))
    seeds = {curve.seeds for curve in curves}
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    figure.text(_LEFT / width, 1 - 0.3 / _HEIGHT, title, color=_INK, fontsize=12, weight="bold", parse_math=False)
    said = f"mean of {count} seeds, band: one standard error" if max(seeds) > 1 else "one seed"
    axes.set_title(said, loc="left", color=_FAINT, fontsize=9)
    _style(axes, objective, over, log)
    shown = _shown(curves, objective)
    axes.set_ylim(*shown)
    axes.set_xlim(_first_x(curves) if log else 0.0, curves[0].x[-1])
    if target is not None and shown[0] < target < shown[1]:
        axes.axhline(target, color=_FAINT, linewidth=0.8, dashes=(4, 3), zorder=1)
        axes.annotate(
            f"target {target:.3g}",
            (0, target),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
        )
    for number, curve in enumerate(curves):
        color, dashes = _look(number)
        axes.fill_between(
            curve.x, curve.mean - curve.error, curve.mean + curve.error, color=color, alpha=0.13, linewidth=0
        )
        (line,) = axes.plot(curve.x, curve.mean, color=color, linewidth=2.2 if number == 0 else 1.5, zorder=3)
        if dashes:
            line.set_dashes(dashes)
    _label(axes, curves, shown)
    save(figure, path)


def _place(outcome: Outcome, over: Over) -> Series:
    return np.array([getattr(point, over) for point in outcome.curve], dtype=np.float64)


def _values_at(outcome: Outcome, x: Series, over: Over) -> Series:
    values = np.array([point.value for point in outcome.curve], dtype=np.float64)
    return values[np.maximum(np.searchsorted(_place(outcome, over), x, side="right") - 1, 0)]


def _look(number: int) -> tuple[str, tuple[float, ...]]:
    """A colour for each of ten lines; the next ten are dashed."""
    return _COLORS[number % len(_COLORS)], _DASHES[number // len(_COLORS) % len(_DASHES)]


def _style(axes: Axes, objective: Objective, over: Over, log: bool) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(colors=_FAINT, labelsize=8.5, length=0, pad=4)
    words = {"rounds": "rounds spent, tuning included", "seconds": "virtual seconds, tuning included"}
    axes.set_xlabel(words[over], color=_FAINT, fontsize=9.5)
    axes.set_ylabel(f"{objective.metric} of the model delivered", color=_FAINT, fontsize=9.5, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 3, 5, 6, 10]))


def _shown(curves: Sequence[Curve], objective: Objective) -> tuple[float, float]:
    """The part of the vertical axis where the tuners differ: the climb that all share is cut short."""
    ends = [float(curve.mean[-1]) for curve in curves]
    settled = [float(curve.mean[int(_SETTLED * _POINTS)]) for curve in curves]
    if objective.direction == "maximize":
        low = min(min(ends), float(np.median(settled)))
        high = max(float((curve.mean + curve.error).max()) for curve in curves)
    else:
        low = min(float((curve.mean - curve.error).min()) for curve in curves)
        high = max(max(ends), float(np.median(settled)))
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _first_x(curves: Sequence[Curve]) -> float:
    return float(curves[0].x[1])


def _label(axes: Axes, curves: Sequence[Curve], shown: tuple[float, float]) -> None:
    """Names at the right, in the order of the lines' ends, moved apart where they would cover one another."""
    low, high = shown
    heights = [(float(np.clip(curve.mean[-1], low, high)) - low) / (high - low) for curve in curves]
    order = sorted(range(len(curves)), key=lambda number: heights[number])
    places = _apart([heights[number] for number in order], min(0.052, 1.06 / max(len(curves), 1)))
    for number, place in zip(order, places, strict=True):
        color, _ = _look(number)
        weight = "bold" if number == 0 else "normal"
        axes.plot(
            (1.005, 1.02, 1.05),
            (heights[number], heights[number], place),
            transform=axes.transAxes,
            color=color,
            linewidth=0.8,
            clip_on=False,
        )
        axes.text(
            1.06,
            place,
            _name(curves[number]),
            transform=axes.transAxes,
            va="center",
            color=color,
            fontsize=8.5,
            fontweight=weight,
            parse_math=False,
        )


def _name(curve: Curve) -> str:
    """What stands at the end of a line: where it ends, and the tuner without the words that all of its kind share."""
    short = curve.tuner.removeprefix("optuna:")
    for word, instead in (("Sampler", ""), ("+", " + "), ("Pruner", ""), (":", " ")):
        short = short.replace(word, instead)
    return f"{curve.mean[-1]:.3f}  {short}"


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending places, each near its height and at least `gap` above the one before."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap) if places else height)
    # Pushed above the top, they move down together.
    ceiling = 1.02
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
