"""Parallel coordinates: every trial a line through its hyper-parameters, on the scale that each is searched on."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from fedstep.common.hyperparameters import Value
from fedstep.common.space import CategoricalParameter, FloatParameter, Parameter, Space
from fedstep.server.report.canvas import FAINT, GRID, INK, RIGHT, WIDTH, add_axes, new_figure
from fedstep.server.report.courses import BEST, COMPLETED, Course
from fedstep.server.report.scales import ValueRange
from fedstep.server.report.words import number_text, say, short

_MOST = 12
_CHOICES_NAMED = 6
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
"""Of a word: what crosses it is dimmed."""

_FAINTEST, _STRONGEST = 0.15, 0.8
_LEFT, _TOP, _HEIGHT, _BELOW = 0.9, 0.45, 3.4, 0.25
_ROW = 0.62
"""Inches between two rows, where the axes lie one below the other."""

_NARROW_LEFT, _NARROW_RIGHT = 0.25, 0.25
_NARROW_LETTER = 0.022
"""Of a small letter, in parts of an axis that lies."""


def draw_parallel(space: Space, courses: Sequence[Course], metric: str, minimize: bool, width: float) -> Figure:
    """The picture: axes side by side, or one below the other where it is narrow; good trials are strong lines.

    Args:
        space: The study's; its first twelve hyper-parameters are drawn.
        courses: Trials that have a score, the best among them or not.
        metric: The objective.
        minimize: Whether less of it is better.
        width: In inches.
    """
    parameters = list(space.parameters.items())[:_MOST]
    upright = width >= WIDTH
    if upright:
        figure = new_figure(_TOP + _HEIGHT + _BELOW, width)
        axes = add_axes(figure, _LEFT, _TOP, width - _LEFT - 2 * RIGHT, _HEIGHT)
    else:
        height = _ROW * len(parameters)
        figure = new_figure(_TOP + height + 0.35, width)
        axes = add_axes(figure, _NARROW_LEFT, _TOP, width - _NARROW_LEFT - _NARROW_RIGHT, height)
    scores = [course.score for course in courses if course.score is not None]
    best = [course.score for course in courses if course.look is BEST and course.score is not None]
    shown = ValueRange.of(scores, best, minimize)
    _draw_lines(axes, courses, parameters, shown, minimize, upright)
    _name_axes(axes, parameters, metric, scores, shown, upright)
    return figure


def _draw_lines(
    axes: Axes,
    courses: Sequence[Course],
    parameters: Sequence[tuple[str, Parameter]],
    shown: ValueRange,
    minimize: bool,
    upright: bool,
) -> None:
    drawn, colors = [], []
    for course in courses:
        if course.score is None or course.look is BEST:
            continue
        good = 1 - shown.height(course.score) if minimize else shown.height(course.score)
        lines = _lines(course, course.score, parameters, shown)
        drawn += lines
        colors += [to_rgba(COMPLETED.color, _FAINTEST + (_STRONGEST - _FAINTEST) * good**2)] * len(lines)
    best = [course for course in courses if course.look is BEST]
    strong = [line for one in best if one.score is not None for line in _lines(one, one.score, parameters, shown)]
    for lines, color, width, order in ((drawn, colors, 1.1, 3), (strong, BEST.color, 2.4, 4)):
        turned = [[(x, y) if upright else (y, -x) for x, y in line] for line in lines]
        axes.add_collection(LineCollection(turned, colors=color, linewidths=width, zorder=order), autolim=False)


def _lines(
    course: Course, score: float, parameters: Sequence[tuple[str, Parameter]], shown: ValueRange
) -> list[list[tuple[float, float]]]:
    """A trial's line, broken where a hyper-parameter does not exist at its point."""
    lines = [[(0.0, shown.height(score))]]
    for at, (name, parameter) in enumerate(parameters, start=1):
        place = place_of(parameter, course.trial.hyperparameters.get(name))
        if place is None:
            lines.append([])
        else:
            lines[-1].append((float(at), place))
    return [line for line in lines if len(line) > 1]


def place_of(parameter: Parameter, value: Value | None) -> float | None:
    """Where a value stands between the ends of its axis, 0 and 1; None where there is none that could stand there."""
    if value is None or (parameter.normal(value) is None and not isinstance(parameter, FloatParameter)):
        return None
    return parameter.to_unit(value)  # one beyond an end, as of a learning rate that has fallen, stands at it


def _name_axes(
    axes: Axes,
    parameters: Sequence[tuple[str, Parameter]],
    metric: str,
    scores: Sequence[float],
    shown: ValueRange,
    upright: bool,
) -> None:
    last = len(parameters)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    limits = (-0.02, last + 0.02), (-0.03, 1.03)
    axes.set_xlim(*(limits[0] if upright else limits[1]))
    axes.set_ylim(*(limits[1] if upright else (-last - 0.02, 0.02)))
    letters = max(4, int(9.5 / (last + 1) / 0.085)) if upright else 40
    names = [metric, *(name for name, _ in parameters)]
    marks = [sorted({(shown.height(score), number_text(shown.clip(score))) for score in (min(scores), max(scores))})]
    marks += [_marks(parameter) for _, parameter in parameters]
    for at, (name, ticks) in enumerate(zip(names, marks, strict=True)):
        if upright:
            axes.axvline(at, color=GRID, linewidth=1.2, zorder=1)
        else:
            axes.axhline(-at, color=GRID, linewidth=1.2, zorder=1)
        axes.annotate(
            short(name, letters),
            (at, 1.03) if upright else (0.5, -at),
            xytext=(0, 8 if upright else 5),
            textcoords="offset points",
            ha="center",
            color=BEST.color if at == 0 else INK,
            fontsize=9.5 if upright else 9,
            parse_math=False,
            zorder=6,
            annotation_clip=False,
            bbox=_BEHIND,
        )
        for place, text in ticks if upright else _apart(ticks):
            axes.annotate(
                text,
                (at, place) if upright else (place, -at),
                xytext=(-5, 0) if upright else (0, -4),
                textcoords="offset points",
                ha="right" if upright else _side(place),
                va="center" if upright else "top",
                color=FAINT,
                fontsize=8,
                parse_math=False,
                zorder=6,
                annotation_clip=False,
                bbox=_BEHIND,
            )


def _side(place: float) -> str:
    """On which side of its place on a horizontal axis a word begins, so that it does not leave the picture."""
    return "left" if place < 0.3 else "right" if place > 0.7 else "center"


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Of what would be written along a narrow axis what does not lie on what stands before it; the ends stay."""
    kept: list[tuple[float, str]] = []
    end = -1.0
    last_begins, _ = _reach(*ticks[-1])
    for tick in ticks[:-1]:
        begins, ends = _reach(*tick)
        if not kept or (begins > end and ends < last_begins):
            kept.append(tick)
            end = ends
    return [*kept, ticks[-1]] if last_begins > end else kept


def _reach(place: float, text: str) -> tuple[float, float]:
    """Where a word on a narrow axis begins and ends, in parts of the axis."""
    width = _NARROW_LETTER * (len(text) + 2)
    begins = place - width * {"left": 0.0, "center": 0.5, "right": 1.0}[_side(place)]
    return begins, begins + width


def _marks(parameter: Parameter) -> list[tuple[float, str]]:
    """What is written along an axis: its ends, or all of few choices."""
    if isinstance(parameter, CategoricalParameter):
        choices = parameter.choices
        written = choices if len(choices) <= _CHOICES_NAMED else (choices[0], choices[-1])
        return [(parameter.to_unit(choice), say(choice, 10)) for choice in written]
    ends = (parameter.low,) if parameter.low == parameter.high else (parameter.low, parameter.high)
    return [(parameter.to_unit(end), f"{end:.4g}") for end in ends]
