"""The charts of a report: each as wide as a page, and once more as narrow as a phone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedstep.common.space import CategoricalParameter
from fedstep.server.report.canvas import FAINT, INK, RIGHT, WIDTH, add_axes, count_rounds, new_figure
from fedstep.server.report.courses import BEST, COMPLETED, Look
from fedstep.server.report.page.bars import Bar, draw_bars, draw_values
from fedstep.server.report.page.cost import PURPOSES
from fedstep.server.report.page.importances import comparison_of, importances
from fedstep.server.report.page.parallel import draw_parallel, place_of
from fedstep.server.report.page.story import Story, ToldCost
from fedstep.server.report.participation_picture import draw_participation, participation_height
from fedstep.server.report.picture import draw_courses, draw_parameters, parameters_height
from fedstep.server.report.scales import ValueRange
from fedstep.server.report.tree_picture import arms_height, draw_arms
from fedstep.server.report.units import bytes_text
from fedstep.server.report.words import short

NARROW = 3.7
"""Inches: what a phone shows without making letters smaller."""

_LEFT, _NARROW_LEFT = 0.68, 0.62
_LEGEND, _NARROW_LEGEND = 0.4, 1.0
_MAIN, _BESIDE, _AXIS = 3.4, 2.4, 0.6
_MOST_BARS = 20
_NAMED, _NARROW_NAMED = 24, 10
"""From more clients than these no names are written."""

_ROW, _TITLE, _MOST_ROWS = 0.5, 0.34, 20


@dataclass(frozen=True)
class Chart:
    """Something drawn.

    Attributes:
        name: Unique in a report; also of its PNG.
        label: What it shows, for those who cannot see it.
        draw: Draws it, as wide as it is told, in inches.
    """

    name: str
    label: str
    draw: Callable[[float], Figure]


def charts_of(story: Story) -> dict[str, Chart]:
    """Every chart that there is something to draw for, by name."""
    found = [*_of_search(story), *_of_cost(story)]
    if participation_height(story.shares):
        label = "How often each client's training was asked for and taken, and the loss on its data"
        found.append(Chart("participation", label, lambda width: _participation(story, width)))
    return {chart.name: chart for chart in found}


def _of_search(story: Story) -> list[Chart]:
    if not any(course.points for course in story.courses) and not any(branch.points for branch in story.tree.branches):
        return []
    objective, beside = story.study.spec.objective, story.beside()
    over = "the rounds behind every model" if story.of_arms else "the rounds of every trial"
    found = [Chart("objective", f"{objective.metric} over {over}", lambda width: _objective(story, width))]
    if beside is not None:
        metric = beside.study.spec.objective.metric
        found.append(Chart("loss", f"{metric} over {over}", lambda width: _alone(beside, width)))
    scored = [course for course in story.courses if course.score is not None]
    if not story.of_arms and len(scored) > 1:
        label = f"Every trial's last {objective.metric} against each hyper-parameter"
        found.append(Chart("hyperparameters", label, lambda width: _parameters(story, width)))
        label = "The hyper-parameters of every trial, in the order of the study's rounds"
        found.append(Chart("tried", label, lambda width: _tried(story, width)))
    return found + _of_comparison(story)


def _of_comparison(story: Story) -> list[Chart]:
    """What Optuna, and parallel coordinates, make of the trials that can be compared."""
    spec, compared = story.study.spec, comparison_of(story)
    scored = [course for course in story.courses if course.score is not None]
    shown = compared.courses if story.of_arms else scored
    found = []
    if len(shown) > 1:
        metric, minimize = compared.metric, spec.objective.direction == "minimize"
        label = f"Every trial as a line through its {metric} and its hyper-parameters"
        found.append(Chart("parallel", label, lambda width: draw_parallel(spec.space, shown, metric, minimize, width)))
    mattered = importances(spec.space, compared.courses, spec.objective.direction)
    if len(mattered) > 1:
        label = "How much each hyper-parameter mattered"
        found.append(Chart("importances", label, lambda width: _importances(mattered, width)))
    return found


def _of_cost(story: Story) -> list[Chart]:
    """What the study cost, by purpose, round and client."""
    found, cost = [], story.cost
    if len(story.rounds) > 1:
        label = "The seconds and the updates of every round"
        found.append(Chart("rounds", label, lambda width: _rounds(story, width)))
    if cost is not None and cost.total.payload_bytes:
        found.append(Chart("spending", "Bytes by what they were for", lambda width: _spending(cost, width)))
    if cost is not None and len(cost.clients) > 1:
        found.append(Chart("work", "Seconds and bytes of every client", lambda width: _work(cost, width)))
    return found


def _left(width: float) -> float:
    return _LEFT if width >= WIDTH else _NARROW_LEFT


def _objective(story: Story, width: float) -> Figure:
    """The objective; of arms with their hyper-parameters below, on the same axis."""
    if not story.of_arms:
        return _alone(story, width, _MAIN)
    above = _LEGEND if width >= WIDTH else _NARROW_LEGEND
    figure = new_figure(above + arms_height(story.study.spec.space, story.trials), width)
    draw_arms(figure, story.study, story.tree, (_left(width), above))
    return figure


def _alone(story: Story, width: float, height: float = _BESIDE) -> Figure:
    """The objective and nothing else."""
    above = _LEGEND if width >= WIDTH else _NARROW_LEGEND
    if story.of_arms:
        figure = new_figure(above + height + _AXIS, width)
        draw_arms(figure, story.study, story.tree, (_left(width), above), with_rows=False)
        return figure
    figure = new_figure(above + height + _AXIS, width)
    left = _left(width)
    draw_courses(add_axes(figure, left, above, width - left - RIGHT, height), story.study, story.courses)
    return figure


def _parameters(story: Story, width: float) -> Figure:
    figure = new_figure(0.3 + parameters_height(story.study.spec.space, width), width)
    draw_parameters(figure, story.study, story.courses, (_left(width), 0.3))
    return figure


def _tried(story: Story, width: float) -> Figure:
    """A row for each hyper-parameter, and on it every trial's value over the rounds that it trained."""
    parameters = list(story.study.spec.space.parameters.items())[:_MOST_ROWS]
    figure = new_figure(len(parameters) * (_ROW + _TITLE) + _AXIS, width)
    left = _left(width)
    for row, (name, parameter) in enumerate(parameters):
        axes = add_axes(figure, left, _TITLE + row * (_ROW + _TITLE), width - left - RIGHT, _ROW)
        axes.set_title(short(name, 60), loc="left", color=INK, fontsize=9.5, pad=4, parse_math=False)
        before = 0
        legs: dict[Look, list[list[tuple[float, float]]]] = {}
        for course in story.courses:
            first, before = before, before + course.trial.rounds
            at = place_of(parameter, course.trial.hyperparameters.get(name))
            if at is not None and first < before:
                legs.setdefault(course.look, []).append([(first, at), (before, at)])
        for look, lines in legs.items():
            axes.add_collection(
                LineCollection(
                    lines,
                    colors=look.color,
                    linewidths=2.6 if look is BEST else 1.8,
                    alpha=look.alpha,
                    zorder=look.order,
                    capstyle="butt",
                ),
                autolim=False,
            )
        axes.set_xlim(0, max(before, 1))
        axes.set_ylim(-0.12, 1.12)
        axes.grid(visible=False, axis="y")
        if isinstance(parameter, CategoricalParameter):
            ends = [parameter.choices[0], parameter.choices[-1]] if len(parameter.choices) > 1 else parameter.choices
            texts = [short(str(end), 8) for end in ends]
            places = [parameter.to_unit(end) for end in ends]
        else:
            numbers = sorted({parameter.low, parameter.high})
            texts, places = [f"{end:.3g}" for end in numbers], [parameter.to_unit(end) for end in numbers]
        axes.set_yticks(places, texts, parse_math=False, fontsize=7.5)
        count_rounds(axes)
        axes.tick_params(labelbottom=row == len(parameters) - 1)
        if row == len(parameters) - 1:
            axes.set_xlabel("rounds of the study", color=FAINT, fontsize=9.5)
    return figure


def _importances(values: Mapping[str, float], width: float) -> Figure:
    """Shares as bars, the greatest above."""
    shown = list(values.items())[:_MOST_BARS]
    bars = [Bar(name, value, f"{value:.0%}", COMPLETED.color) for name, value in shown]
    return draw_bars(bars, width, 24 if width >= WIDTH else 16)


def _spending(cost: ToldCost, width: float) -> Figure:
    """The bytes of each purpose, with their share of all."""
    total, wide = cost.total.payload_bytes, width >= WIDTH
    bars = [
        Bar(
            PURPOSES[one.purpose],
            one.spent.payload_bytes,
            f"{bytes_text(one.spent.payload_bytes)}, " * wide + f"{one.spent.payload_bytes / total:.0%}",
            COMPLETED.color if one.tuning else BEST.color,
        )
        for one in cost.purposes
    ]
    return draw_bars(bars, width, 34 if wide else 24)


def _work(cost: ToldCost, width: float) -> Figure:
    """The seconds that every client was at work, the longest first, and below the bytes that it moved."""
    clients = sorted(cost.clients, key=lambda one: -(one.training_seconds + one.measuring_seconds))
    left, top, height, gap = _left(width), 0.15, 1.0, 0.25
    figure = new_figure(top + 2 * height + gap + _AXIS, width)
    above = add_axes(figure, left, top, width - left - RIGHT, height)
    below = add_axes(figure, left, top + height + gap, width - left - RIGHT, height)
    draw_values(above, [one.training_seconds + one.measuring_seconds for one in clients], "seconds")
    draw_values(below, [(one.model_bytes + one.update_bytes) / 1e6 for one in clients], "MB")
    for axes in (above, below):
        axes.set_xticks([])
    if len(clients) <= (_NAMED if width >= WIDTH else _NARROW_NAMED):
        places, names = range(1, len(clients) + 1), [short(one.client, 14) for one in clients]
        below.set_xticks(places, names, parse_math=False, rotation=25, ha="right", rotation_mode="anchor", fontsize=8)
    else:
        below.set_xlabel(f"{len(clients):,} clients", color=FAINT, fontsize=9.5)
    return figure


def _rounds(story: Story, width: float) -> Figure:
    """The seconds of every round in the order of commits, and below how many updates it took."""
    left, top, tall, low, gap = _left(width), 0.15, 1.3, 0.6, 0.25
    figure = new_figure(top + tall + gap + low + _AXIS, width)
    above = add_axes(figure, left, top, width - left - RIGHT, tall)
    below = add_axes(figure, left, top + tall + gap, width - left - RIGHT, low)
    seconds = [told.seconds for told in story.rounds]
    shown = ValueRange.of(seconds, (), minimize=True)
    most = max(seconds) if shown.log else shown.high  # one round that waited long does not press the others flat
    draw_values(above, [min(value, most) for value in seconds], "seconds")
    draw_values(below, [float(told.updates) for told in story.rounds], "updates")
    below.yaxis.set_major_locator(MaxNLocator(nbins=2, integer=True, min_n_ticks=1))
    above.tick_params(labelbottom=False)
    below.set_xlabel("rounds of the study", color=FAINT, fontsize=9.5)
    return figure


def _participation(story: Story, width: float) -> Figure:
    narrow = 0.0 if width >= WIDTH else 0.35
    figure = new_figure(participation_height(story.shares) + narrow - 0.25, width)
    draw_participation(figure, story.shares, _left(width), narrow - 0.1, in_words=False)
    return figure
