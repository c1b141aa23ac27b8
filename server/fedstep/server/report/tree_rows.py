"""The hyper-parameters of a step-wise study over the rounds of its delivered model: a row each, one below the other."""

import math
from collections.abc import Sequence
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fedstep.common.hyperparameters import Value
from fedstep.common.space import CategoricalParameter, Parameter, Space
from fedstep.server.report.canvas import INK, RIGHT, add_axes
from fedstep.server.report.courses import BEST
from fedstep.server.report.lineage import Branch, Role, Tree
from fedstep.server.report.words import say, short
from fedstep.server.storage.base import TrialRecord

_MOST_ROWS = 20
_NUMBERS, _CHOICE, _BETWEEN, _BELOW = 0.46, 0.17, 0.34, 0.65
"""Inches: the height of a row of numbers, of each choice in a row of choices, between two rows, below the last."""

_FAINT_ROLES = {
    Role.SCREENED: ("#1c7ed6", 0.3),
    Role.REJECTED: ("#69757f", 0.55),
    Role.AVERAGED: (BEST.color, 0.5),
    Role.REWOUND: ("#c92a2a", 0.5),
    Role.FAILED: ("#c92a2a", 0.5),
    Role.RUNNING: ("#2b8a3e", 0.7),
}


def rows_height(space: Space, trials: Sequence[TrialRecord]) -> float:
    """Inches that all rows take."""
    heights = [_height(parameter, _tried(name, parameter, trials)) for name, parameter in _rows(space)]
    return sum(heights) + _BETWEEN * len(heights) + _BELOW


def draw_rows(
    figure: Figure, space: Space, tree: Tree, branches: Sequence[Branch], corner: tuple[float, float]
) -> list[Axes]:
    """Draws the rows, from the first parameter of the space on.

    Args:
        figure: Where.
        space: What is tuned.
        tree: The arms.
        branches: The same, as they are drawn.
        corner: The upper left one of all rows, in inches from the picture's.
    """
    left, top = corner
    drawn = []
    for name, parameter in _rows(space):
        tried = _tried(name, parameter, list(tree.trials.values()))
        height = _height(parameter, tried)
        top += _BETWEEN
        axes = add_axes(figure, left, top, figure.get_size_inches()[0] - left - RIGHT, height)
        top += height
        _draw_row(axes, name, parameter, tried, tree, branches)
        drawn.append(axes)
    return drawn


def _rows(space: Space) -> list[tuple[str, Parameter]]:
    return list(islice(space.parameters.items(), _MOST_ROWS))


def _tried(name: str, parameter: Parameter, trials: Sequence[TrialRecord]) -> list[Value]:
    """The values that arms were trained with, each once: in order, or as the choices stand in the space.

    A study that tunes nothing may have been trained with a default that is none of the choices: it comes last.
    """
    values = {
        trial.hyperparameters[name]
        for trial in trials
        if name in trial.hyperparameters and not trial.details.get("discard")
    }
    if isinstance(parameter, CategoricalParameter):
        chosen = [choice for choice in parameter.choices if choice in values]
        return chosen + sorted(values.difference(chosen), key=str)
    return sorted(values)


def _height(parameter: Parameter, tried: Sequence[Value]) -> float:
    if isinstance(parameter, CategoricalParameter):
        return max(_NUMBERS, _CHOICE * len(tried))
    return _NUMBERS


def _draw_row(
    axes: Axes, name: str, parameter: Parameter, tried: Sequence[Value], tree: Tree, branches: Sequence[Branch]
) -> None:
    """One hyper-parameter: what the lineage used as steps, what others tried as faint marks."""
    axes.set_title(short(name, 60), loc="left", color=INK, fontsize=9.5, pad=4, parse_math=False)
    axes.grid(visible=False, axis="y")
    _set_values(axes, parameter, tried)

    def height(value: Value) -> float:
        return float(tried.index(value)) if isinstance(parameter, CategoricalParameter) else float(value)

    for role, (color, alpha) in _FAINT_ROLES.items():
        legs = [
            [(branch.trial.first_round, height(value)), (branch.trial.rounds_behind, height(value))]
            for branch in branches
            if branch.role is role and branch.trial.rounds and (value := _own(branch.trial, name, tree)) is not None
        ]
        axes.add_collection(
            LineCollection(legs, colors=color, linewidths=1.6, alpha=alpha, zorder=3, capstyle="butt"), autolim=False
        )
    steps = [
        (trial.first_round, trial.rounds_behind, trial.hyperparameters.get(name)) for trial in tree.path if trial.rounds
    ]
    across = [at for first, last, _ in steps for at in (first, last)]
    up = [math.nan if value is None else height(value) for _, _, value in steps for _ in range(2)]
    axes.plot(across, up, color=BEST.color, linewidth=2.2, solid_joinstyle="miter", zorder=5)
    values = [value for _, _, value in steps]
    if values:
        first, last = ("none" if value is None else say(value, 24) for value in (values[0], values[-1]))
        moved = f"{first}  →  {last}" if first != last else f"{first}  →  …  →  {last}"
        said = last if len(set(values)) == 1 else moved
        axes.set_title(said, loc="right", color=BEST.color, fontsize=9, pad=4, parse_math=False)


def _own(trial: TrialRecord, name: str, tree: Tree) -> Value | None:
    """The arm's value; None where the delivered line has the same one in all of its rounds and covers it."""
    value = trial.hyperparameters.get(name)
    covered = sum(
        max(0, min(one.rounds_behind, trial.rounds_behind) - max(one.first_round, trial.first_round))
        for one in tree.path
        if one.rounds and one.hyperparameters.get(name) == value
    )
    return None if covered >= trial.rounds else value


def _set_values(axes: Axes, parameter: Parameter, tried: Sequence[Value]) -> None:
    """The vertical axis from the least to the greatest value that was tried, on the parameter's own scale."""
    axes.tick_params(axis="y", labelsize=7.5)
    if isinstance(parameter, CategoricalParameter):
        axes.set_ylim(-0.6, max(len(tried), 1) - 0.4)
        axes.set_yticks(range(len(tried)), [say(choice, 11) for choice in tried], parse_math=False)
        return
    low, high = (float(tried[0]), float(tried[-1])) if tried else (float(parameter.low), float(parameter.high))
    if parameter.log and low > 0:
        axes.set_yscale("log")
        ratio = high / low
        room = ratio**0.16 if ratio > 1 else 2.0
        axes.set_ylim(low / room, high * room)
    else:
        room = 0.16 * (high - low) or abs(high) or 0.5
        axes.set_ylim(low - room, high + room)
    ends = sorted({low, high})
    axes.set_yticks(ends, [f"{end:.3g}" for end in ends])
    axes.yaxis.set_minor_locator(NullLocator())
