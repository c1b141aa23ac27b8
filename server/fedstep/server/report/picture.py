"""The picture of a study: how every trial fared, and which hyper-parameters made it so.

A study of arms that go on from one another has a picture of its own, see `tree_picture`.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedstep.common.space import CategoricalParameter, Parameter, Space
from fedstep.server.report.canvas import (
    CROWD,
    FAINT,
    HEADER,
    INK,
    RIGHT,
    WIDTH,
    EndLabel,
    add_axes,
    count_rounds,
    label_ends,
    mark,
    new_figure,
    save,
    write_header,
    write_legend,
)
from fedstep.server.report.courses import BEST, Course, courses_of
from fedstep.server.report.lineage import has_arms
from fedstep.server.report.participation import Share
from fedstep.server.report.participation_picture import draw_participation, participation_height
from fedstep.server.report.progress import trains_trials
from fedstep.server.report.scales import ValueRange, set_choices, set_numbers
from fedstep.server.report.tree_picture import draw_tree
from fedstep.server.report.words import cost, outcome, settings, short
from fedstep.server.storage.base import RoundRecord, StudyRecord, TrialRecord

_LEFT, _GAP = 0.8, 0.3
_MAIN, _ROW = 4.3, 2.3
"""Inches: the heights of the large axes and of a row of small ones."""

_COLUMNS, _MOST_PARAMETERS = 5, 20
_LABELLED_TRIALS = 12
"""With more, their numbers beside the lines would hide one another."""


def draw_study(
    path: Path,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    rounds: Sequence[RoundRecord],
    shares: Sequence[Share] = (),
) -> None:
    """Draws a study as a PNG; a reader of the file sees the old picture or the new one, never half of it.

    Above, the objective over the rounds of every trial; below, one small picture for each of the first twenty
    hyper-parameters of the space, with the trials' values against it. Values far outside the rest are drawn at the
    edge. Where the trials are arms of a step-wise tuner, it is the picture of `tree_picture.draw_tree`. Lowest, in
    both, the part that each client took.

    Args:
        path: The file to write, in a folder that exists.
        study: The study.
        trials: Its trials, with their values.
        rounds: Its committed rounds.
        shares: Every client's part.

    Raises:
        OSError: The file cannot be written.
    """
    if has_arms(trials):
        save(draw_tree(study, trials, rounds, shares), path)
        return
    courses = courses_of(study, trials)
    height = HEADER + _MAIN + parameters_height(study.spec.space, WIDTH)
    figure = new_figure(height + participation_height(shares))
    best = next((course for course in courses if course.look is BEST), None)
    said = cost(study, len(courses), rounds)
    write_header(figure, study.spec.name, outcome(study, best), settings(best), said)
    draw_courses(add_axes(figure, _LEFT, HEADER, WIDTH - _LEFT - RIGHT, _MAIN - 0.65), study, courses)
    draw_parameters(figure, study, courses, (_LEFT, HEADER + _MAIN))
    if participation_height(shares):
        draw_participation(figure, shares, _LEFT, height)
    save(figure, path)


def parameters_height(space: Space, width: float) -> float:
    """Inches that `draw_parameters` takes on a figure that is so many inches wide."""
    return _ROW * math.ceil(len(_shown(space)) / _columns(width))


def draw_parameters(figure: Figure, study: StudyRecord, courses: Sequence[Course], corner: tuple[float, float]) -> None:
    """One small picture for each of the first twenty hyper-parameters.

    Args:
        figure: Where.
        study: The study.
        courses: Its trials.
        corner: The upper left one, in inches from the figure's.
    """
    left, above = corner
    width = float(figure.get_size_inches()[0])
    parameters = _shown(study.spec.space)
    rows = math.ceil(len(parameters) / _columns(width))
    # As many in every row; three or fewer do not spread out.
    columns = math.ceil(len(parameters) / rows)
    pitch = (width - left - RIGHT + _GAP) / max(columns, min(3, _columns(width)))
    for index, (name, parameter) in enumerate(parameters):
        row, column = divmod(index, columns)
        axes = add_axes(figure, left + column * pitch, above + row * _ROW + 0.1, pitch - _GAP, _ROW - 0.85)
        _draw_parameter(axes, name, parameter, study, courses, pitch - _GAP)
        if column == 0:
            axes.set_ylabel(study.spec.objective.metric, color=FAINT, fontsize=9, parse_math=False)
        else:
            axes.tick_params(labelleft=False)


def _shown(space: Space) -> list[tuple[str, Parameter]]:
    return list(space.parameters.items())[:_MOST_PARAMETERS]


def _columns(width: float) -> int:
    """Small pictures side by side."""
    return _COLUMNS if width >= WIDTH else 1


def draw_courses(axes: Axes, study: StudyRecord, courses: Sequence[Course]) -> None:
    """The objective over the rounds of every trial."""
    objective = study.spec.objective
    longest = max((course.trial.rounds for course in courses), default=0)
    values = [value for course in courses for _, value in course.points]
    best = [value for course in courses if course.look is BEST for _, value in course.points]
    shown = ValueRange.of(values, best, objective.direction == "minimize")
    shown.apply(axes, ticks=9)
    axes.set_xlim(0.5, max(longest, 2) + 0.5)
    count_rounds(axes)
    axes.set_xlabel("round", color=FAINT, fontsize=9.5)
    axes.set_ylabel(objective.metric, color=FAINT, fontsize=9.5, parse_math=False)
    if trains_trials(study.spec):
        _shade_final_rounds(axes, study.spec.budget.rounds_per_trial, longest, objective.direction == "minimize")
    dots = "." if longest <= 40 and len(courses) < CROWD else ""
    for course in courses:
        look = course.look
        thin = 1.0 if look is BEST or len(courses) < CROWD else 0.55
        # A round without a value leaves no hole: its neighbours are joined, and the dots say which were measured.
        axes.plot(
            [number for number, _ in course.points],
            [shown.clip(value) for _, value in course.points],
            color=look.color,
            linewidth=look.width * thin,
            alpha=look.alpha * thin,
            marker=dots,
            markersize=3.5 + look.width,
            markeredgewidth=0,
            zorder=look.order,
        )
        if course.points:
            last, value = course.end
            mark(axes, last, shown.clip(value), look, len(courses))
    _label_ends(axes, courses, shown)
    _explain_looks(axes, courses)
    if not values:
        axes.text(0.5, 0.5, "no round has been evaluated", transform=axes.transAxes, ha="center", color=FAINT)


def _shade_final_rounds(axes: Axes, tuned: int, longest: int, label_above: bool) -> None:
    """Sets the rounds after the search apart, with the label where the curve is not."""
    if longest <= tuned:
        return
    axes.axvspan(tuned + 0.5, longest + 0.5, color=BEST.color, alpha=0.07, linewidth=0)
    axes.annotate(
        "final rounds of the best",
        (tuned + 0.5, 1.0 if label_above else 0.0),
        xycoords=("data", "axes fraction"),
        xytext=(5, -12 if label_above else 6),
        textcoords="offset points",
        color=BEST.color,
        fontsize=8.5,
    )


def _label_ends(axes: Axes, courses: Sequence[Course], shown: ValueRange) -> None:
    """The trials' numbers beside the ends of their lines; of the best alone where there are many."""
    # The best first: it keeps its label whoever else must go without.
    ranked = sorted(courses, key=lambda course: -course.look.order)
    labelled = [c for c in ranked if c.points and (c.look is BEST or len(courses) <= _LABELLED_TRIALS)]
    label_ends(axes, (_end_label(course, shown) for course in labelled))


def _end_label(course: Course, shown: ValueRange) -> EndLabel:
    last, value = course.end
    best = course.look is BEST
    return EndLabel(
        str(course.trial.number), last, shown.height(value), course.look.color, 10 if best else 8.5, strong=best
    )


def _explain_looks(axes: Axes, courses: Sequence[Course]) -> None:
    """What the colours mean, above the axes, with how many trials there are of each."""
    handles = []
    for look in sorted({course.look for course in courses}, key=lambda look: -look.order):
        numbers = [course.trial.number for course in courses if course.look is look]
        label = f"trial {numbers[0]}, the best" if look is BEST else f"{len(numbers)} {look.label}"
        size = 11 if look is BEST else 6
        handles.append(
            Line2D([], [], color=look.color, marker=look.mark, markersize=size, linewidth=look.width, label=label)
        )
    if handles:
        write_legend(axes, handles, up=1.03)


def _draw_parameter(
    axes: Axes, name: str, parameter: Parameter, study: StudyRecord, courses: Sequence[Course], width: float
) -> None:
    """What the search saw last of every trial, against one of its hyper-parameters, on that one's own scale."""
    scores = [course.score for course in courses if course.score is not None]
    best = [course.score for course in courses if course.look is BEST and course.score is not None]
    shown = ValueRange.of(scores, best, study.spec.objective.direction == "minimize")
    shown.apply(axes, ticks=4)
    axes.set_title(short(name, int(width * 11)), loc="left", color=INK, fontsize=10, parse_math=False)
    if isinstance(parameter, CategoricalParameter):
        set_choices(axes, parameter, width)
    else:
        set_numbers(axes, parameter)
    for course, across in _places(name, parameter, courses):
        if course.score is not None:
            mark(axes, across, shown.clip(course.score), course.look, len(courses))


def _places(name: str, parameter: Parameter, courses: Sequence[Course]) -> Iterator[tuple[Course, float]]:
    """Where each trial that has the parameter stands on its axis; those of one choice stand side by side."""
    having = [course for course in courses if name in course.trial.hyperparameters]
    if not isinstance(parameter, CategoricalParameter):
        yield from ((course, float(course.trial.hyperparameters[name])) for course in having)
        return
    for index, choice in enumerate(parameter.choices):
        chosen = [c for c in having if c.trial.hyperparameters[name] == choice and c.score is not None]
        spread = min(0.3, 0.06 * (len(chosen) - 1))
        for rank, course in enumerate(chosen):
            yield course, index + (spread * (2 * rank / (len(chosen) - 1) - 1) if len(chosen) > 1 else 0.0)
