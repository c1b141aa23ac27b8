"""The trials of a study as they are drawn: which is the best, which belong together, what each looks like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedstep.server.report.progress import trains_trials
from fedstep.server.storage.base import StudyRecord, TrialRecord, TrialState
from fedstep.server.tuning.ranking import best_trial


@dataclass(frozen=True)
class Look:
    """How the trials of one kind are drawn.

    Attributes:
        label: What the legend calls them.
        color: Of line and mark.
        alpha: Of the line.
        width: Of the line, in points.
        mark: How a trial's end is marked.
        order: Greater ones lie on top.
    """

    label: str
    color: str
    alpha: float
    width: float
    mark: str
    order: int


BEST = Look("best", "#e8590c", 1.0, 2.6, "*", 6)
RUNNING = Look("running", "#2b8a3e", 0.75, 1.4, ">", 5)
COMPLETED = Look("completed", "#1c7ed6", 0.75, 1.4, "o", 4)
PRUNED = Look("pruned", "#8f9ba8", 0.55, 1.1, "X", 3)
FAILED = Look("failed", "#c92a2a", 0.6, 1.1, "x", 2)


@dataclass(frozen=True)
class Course:
    """One trial as it is drawn.

    Attributes:
        trial: Its record.
        points: (round from 1, objective) wherever a finite value was measured.
        score: The last value that the search saw, before any final rounds; None when it saw none.
        look: Colour, line and mark.
    """

    trial: TrialRecord
    points: tuple[tuple[int, float], ...]
    score: float | None
    look: Look

    @property
    def end(self) -> tuple[int, float]:
        """The point that is marked, of at least one: the last, or that of the final round that is delivered."""
        delivered = self.trial.own_rounds_delivered
        return next((point for point in reversed(self.points) if point[0] <= delivered), self.points[-1])


def courses_of(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[Course]:
    """The trials by number, at most one of them the best."""
    tuned = study.spec.budget.rounds_per_trial if trains_trials(study.spec) else None
    plain = [_course(trial, tuned) for trial in trials]
    plain.sort(key=lambda course: course.trial.number)
    best = best_trial(study.spec, [course.trial for course in plain])
    return [replace(course, look=BEST) if course.trial is best else course for course in plain]


def _course(trial: TrialRecord, tuned: int | None) -> Course:
    match trial.state:
        case TrialState.RUNNING:
            look = RUNNING
        case TrialState.COMPLETED:
            look = COMPLETED
        case TrialState.PRUNED:
            look = PRUNED
        case TrialState.FAILED:
            look = FAILED
    points = tuple(
        (number, value)
        for number, value in enumerate(trial.values, start=1)
        if value is not None and math.isfinite(value)
    )
    searched = [value for number, value in points if tuned is None or number <= tuned]
    return Course(trial, points, searched[-1] if searched else None, look)
