"""The picture of a step-wise study: the tree of its forks, and what its model was trained with, round by round.

Above, the objective over the rounds behind a model: the delivered one's lineage bold, every branch that was not taken
thin. Below, on the same axis, a row for each hyper-parameter (`tree_rows`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedstep.common.space import Space
from fedstep.server.report.canvas import (
    FAINT,
    GRID,
    HEADER,
    RIGHT,
    EndLabel,
    add_axes,
    count_rounds,
    label_ends,
    mark,
    new_figure,
    write_header,
    write_legend,
)
from fedstep.server.report.courses import BEST, Course
from fedstep.server.report.lineage import Branch, Point, Role, Tree, parents_of, phase_of, tree_of
from fedstep.server.report.participation import Share
from fedstep.server.report.participation_picture import draw_participation, participation_height
from fedstep.server.report.scales import ValueRange
from fedstep.server.report.tree_rows import draw_rows, rows_height
from fedstep.server.report.words import cost, outcome, settings
from fedstep.server.storage.base import RoundRecord, StudyRecord, TrialRecord

_LEFT, _NAMES, _MAIN, _BELOW = 0.95, 0.22, 4.1, 0.22
"""Inches: left of the axes; of the names of the phases above the large ones, these themselves, and below them."""

_AXIS = 0.6
"""Inches of the horizontal axis, where there are no rows below it."""

_MANY_ROUNDS, _MANY_ARMS = 60, 80
"""From so many on there is no room for a dot at every measurement, or for the numbers of arms."""

_LABELLED = 16
_MOST_BANDS = 6
_STEP_WISE = "step-wise"
_BAND_OF = {"advance": _STEP_WISE, "fork": _STEP_WISE}
_BAND_COLORS = {"screen": "#1c7ed6", _STEP_WISE: "#2b8a3e", "settle": BEST.color}


@dataclass(frozen=True)
class _Thread:
    """How the branches of one role are drawn.

    Attributes:
        label: What the legend calls them.
        color: Of the line.
        mark: At their ends; "" for none.
        width: In points.
        alpha: Of the line.
    """

    label: str
    color: str
    mark: str
    width: float = 1.0
    alpha: float = 0.6


THREADS = {
    Role.AVERAGED: _Thread("averaged in", BEST.color, "", 1.4, 0.75),
    Role.SCREENED: _Thread("from other beginnings", "#1c7ed6", "X"),
    Role.REJECTED: _Thread("not taken", "#69757f", "X", alpha=0.7),
    Role.REWOUND: _Thread("gone back on", "#c92a2a", "<", 1.2, 0.75),
    Role.FAILED: _Thread("failed", "#c92a2a", "x", alpha=0.6),
    Role.RUNNING: _Thread("under way", "#2b8a3e", ">", 1.2, 0.8),
}
_ADOPTED, _AGAIN = "#2b8a3e", "#9aa5b1"


@dataclass(frozen=True)
class Band:
    """A phase of the delivered lineage.

    Attributes:
        name: Of the phase.
        first: Rounds behind the model when it began.
        last: When it ended.
    """

    name: str
    first: int
    last: int

    @property
    def color(self) -> str:
        """Of its shade and its name."""
        return _BAND_COLORS.get(self.name, FAINT)


def draw_tree(
    study: StudyRecord, trials: Sequence[TrialRecord], rounds: Sequence[RoundRecord], shares: Sequence[Share] = ()
) -> Figure:
    """The picture; its height grows with the number of hyper-parameters.

    Args:
        study: The study.
        trials: Its arms, with what was measured.
        rounds: Its committed rounds.
        shares: Every client's part, drawn lowest.
    """
    tree = tree_of(study, trials)
    height = HEADER + arms_height(study.spec.space, trials)
    figure = new_figure(height + participation_height(shares))
    best = _best(tree)
    said = cost(study, len(trials), rounds, "arm")
    write_header(figure, study.spec.name, outcome(study, best), settings(best, "ends with"), said)
    draw_arms(figure, study, tree, (_LEFT, HEADER))
    if participation_height(shares):
        draw_participation(figure, shares, _LEFT, height)
    return figure


def arms_height(space: Space, trials: Sequence[TrialRecord]) -> float:
    """Inches that `draw_arms` takes, with its rows."""
    return _NAMES + _MAIN + _BELOW + rows_height(space, trials)


def draw_arms(
    figure: Figure, study: StudyRecord, tree: Tree, corner: tuple[float, float], with_rows: bool = True
) -> None:
    """The tree, and the hyper-parameters below it.

    Args:
        figure: Where.
        study: The study.
        tree: Its arms.
        corner: The upper left one, in inches from the figure's.
        with_rows: Whether with the hyper-parameters; without them it takes the height that is there.
    """
    left, top = corner
    across, down = figure.get_size_inches()
    branches, bands = tree.branches, bands_of(tree)
    height = _MAIN if with_rows else down - top - _NAMES - _AXIS
    main = add_axes(figure, left, top + _NAMES, across - left - RIGHT, height)
    kept = [trial for trial in tree.trials.values() if not trial.details.get("discard")]
    main.set_xlim(0, max(max((trial.rounds_behind for trial in kept), default=0), 2) * 1.02)
    _shade(main, bands, tree)
    _draw_branches(main, study, tree, branches)
    below = (left, top + _NAMES + _MAIN + _BELOW)
    rows = draw_rows(figure, study.spec.space, tree, branches, below) if with_rows else []
    for axes in rows:
        axes.set_xlim(main.get_xlim())
        for band in bands:
            axes.axvspan(band.first, band.last, color=band.color, alpha=0.05, linewidth=0)
        for at, _ in tree.adoptions():
            axes.axvline(at, color=_ADOPTED, alpha=0.35, linewidth=0.8, zorder=1.5)
    lowest = rows[-1] if rows else main
    for axes in (main, *rows):
        count_rounds(axes)
        axes.tick_params(labelbottom=axes in (main, lowest))
    lowest.set_xlabel("rounds behind the model", color=FAINT, fontsize=9.5)


def bands_of(tree: Tree) -> list[Band]:
    """The phases of the delivered lineage, in order; none where its tuner has no phases, or too many."""
    bands: list[Band] = []
    for trial in tree.path:
        name = _BAND_OF.get(phase_of(trial), phase_of(trial))
        if not trial.rounds or not name:
            continue
        if bands and bands[-1].name == name:
            bands[-1] = Band(name, bands[-1].first, trial.rounds_behind)
        else:
            bands.append(Band(name, trial.first_round, trial.rounds_behind))
    return bands if len(bands) <= _MOST_BANDS else []


def _best(tree: Tree) -> Course | None:
    """The delivered arm with what it was trained with last, as the header's words want it."""
    if tree.delivered is None:
        return None
    schedule = tree.schedule()
    last = schedule[-1].hyperparameters if schedule else tree.delivered.hyperparameters
    return Course(replace(tree.delivered, hyperparameters=last), (), tree.delivered.value, BEST)


def _shade(axes: Axes, bands: Sequence[Band], tree: Tree) -> None:
    """The phases, with their names above."""
    asked = {phase_of(trial) or "asked" for trial in tree.trials.values() if trial.details.get("discard")}
    longest = axes.get_xlim()[1]
    free = 0.0
    for index, band in enumerate(bands):
        axes.axvspan(band.first, band.last, color=band.color, alpha=0.05, linewidth=0)
        name = " · ".join([*sorted(asked), band.name]) if index == 0 else band.name
        left = max(band.first / longest, free)
        free = left + 0.0085 * len(name)  # about what it takes in this size
        axes.text(left, 1.015, name, transform=axes.transAxes, color=band.color, fontsize=8.5, parse_math=False)


def _draw_branches(axes: Axes, study: StudyRecord, tree: Tree, branches: Sequence[Branch]) -> None:
    """The objective over the rounds behind every model that was measured."""
    objective = study.spec.objective
    lineage = [point for branch in branches if branch.role is Role.LINEAGE for point in branch.points]
    values = [value for branch in branches if branch.role is not Role.ASKED for _, value in branch.points]
    shown = ValueRange.of(values, [value for _, value in lineage], objective.direction == "minimize", open_up=True)
    shown.apply(axes, ticks=9)
    axes.set_ylabel(objective.metric, color=FAINT, fontsize=9.5, parse_math=False)
    if not values:
        axes.text(0.5, 0.5, "nothing has been measured", transform=axes.transAxes, ha="center", color=FAINT)
    if any(shown.clip(value) != value for value in values):
        said = "what lies beyond the axis is drawn at its edge"
        axes.text(0.995, 0.015, said, transform=axes.transAxes, ha="right", color=FAINT, fontsize=8)
    for role in THREADS:
        _draw_threads(axes, [branch for branch in branches if branch.role is role], role, shown, len(branches))
    again = [point for branch in branches if branch.role is Role.MEASURED for point in branch.points]
    axes.plot(
        [at for at, _ in again],
        [shown.clip(value) for _, value in again],
        "o",
        markersize=3.2,
        markerfacecolor="white",
        markeredgecolor=_AGAIN,
        markeredgewidth=0.7,
        zorder=3,
    )
    _draw_lineage(axes, lineage, shown)
    for at, value in tree.adoptions():
        axes.plot([at], [shown.clip(value)], "^", color=_ADOPTED, markersize=9, markeredgecolor="white", zorder=7)
    _label(axes, branches, shown)
    _explain_threads(axes, branches, len(tree.adoptions()), bool(again))


def _draw_lineage(axes: Axes, points: Sequence[Point], shown: ValueRange) -> None:
    """The way to the delivered model, and its end."""
    axes.plot(
        [at for at, _ in points],
        [shown.clip(value) for _, value in points],
        color=BEST.color,
        linewidth=BEST.width,
        marker="." if len(points) <= _MANY_ROUNDS else "",
        markersize=7,
        markeredgewidth=0,
        solid_joinstyle="round",
        zorder=BEST.order,
    )
    if points:
        at, value = points[-1]
        mark(axes, at, shown.clip(value), BEST, 1)


def _draw_threads(axes: Axes, branches: Sequence[Branch], role: Role, shown: ValueRange, arms: int) -> None:
    """The branches of one role, from where they leave to where they end; a mark where none of them goes on."""
    thread, thin = THREADS[role], 0.75 if arms >= _MANY_ARMS else 1.0
    branches = [branch for branch in branches if branch.points]
    went_on = {parent for branch in branches for parent in parents_of(branch.trial)}
    lines = [[*([branch.start] if branch.start else []), *branch.points] for branch in branches]
    clipped = [[(at, shown.clip(value)) for at, value in line] for line in lines]
    axes.add_collection(
        LineCollection(
            clipped, colors=thread.color, linewidths=thread.width * thin, alpha=thread.alpha * thin, zorder=3.5
        ),
        autolim=False,
    )
    ends = [line[-1] for branch, line in zip(branches, clipped, strict=True) if branch.trial.number not in went_on]
    if thread.mark and ends:
        cross = thread.mark == "x"
        axes.plot(
            [at for at, _ in ends],
            [value for _, value in ends],
            thread.mark,
            color=thread.color,
            markersize=(6.5 if thread.mark == "<" else 5) * thin,
            alpha=0.85,
            markeredgewidth=1.2 if cross else 0.5,
            markeredgecolor=thread.color if cross else "white",
            zorder=4,
        )


def _label(axes: Axes, branches: Sequence[Branch], shown: ValueRange) -> None:
    """The numbers of the arms at their ends, where there are few and one does not cover another."""
    ended = [branch for branch in branches if branch.points and branch.role in THREADS]
    if len(ended) <= _LABELLED:
        label_ends(axes, (_end_label(branch, shown) for branch in ended))


def _end_label(branch: Branch, shown: ValueRange) -> EndLabel:
    at, value = branch.points[-1]
    return EndLabel(str(branch.trial.number), at, shown.height(value), THREADS[branch.role].color, size=8)


def _explain_threads(axes: Axes, branches: Sequence[Branch], adopted: int, measured: bool) -> None:
    """What the colours mean, above the axes, with how many there are of each."""
    handles = [
        Line2D([], [], color=BEST.color, marker=BEST.mark, markersize=11, linewidth=BEST.width, label="delivered")
    ]
    if adopted:
        handles.append(
            Line2D(
                [],
                [],
                color=_ADOPTED,
                marker="^",
                markersize=8,
                markeredgecolor="white",
                linestyle="",
                label=f"{adopted} adopted",
            )
        )
    for role, thread in THREADS.items():
        # A member of the screen that was trained in two rungs was left once: at its end.
        count = len(_ends([branch for branch in branches if branch.role is role]))
        if count:
            handles.append(
                Line2D(
                    [],
                    [],
                    color=thread.color,
                    marker=thread.mark,
                    markersize=6,
                    markeredgecolor=thread.color if thread.mark == "x" else "white",
                    linewidth=thread.width,
                    label=f"{count} {thread.label}",
                )
            )
    if measured:
        handles.append(
            Line2D(
                [],
                [],
                marker="o",
                markersize=4,
                markerfacecolor="white",
                color=GRID,
                linestyle="",
                label="only measured",
            )
        )
        handles[-1].set_markeredgecolor(_AGAIN)
    write_legend(axes, handles, up=1.075, tight=True)


def _ends(branches: Sequence[Branch]) -> list[Branch]:
    """Those that no other one of them goes on from."""
    parents = {number for branch in branches for number in branch.trial.details.get("parents", ())}
    return [branch for branch in branches if branch.trial.number not in parents]
