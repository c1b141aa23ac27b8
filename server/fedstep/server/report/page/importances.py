"""Which trials can be compared, and how much each hyper-parameter mattered to them, as Optuna computes it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import optuna

from fedstep.common.space import Space
from fedstep.server.report.courses import Course
from fedstep.server.report.lineage import parents_of
from fedstep.server.report.page.story import Story
from fedstep.server.storage.base import TrialState
from fedstep.server.tuning.optuna_space import distributions_of
from fedstep.server.tuning.optuna_storage import without_info

LEAST = 4
"""Trials below which nothing is said."""


@dataclass(frozen=True)
class Comparison:
    """Trials whose values can be compared.

    Attributes:
        courses: The trials.
        metric: What their scores are called.
        who: What they are, in a few words.
    """

    courses: Sequence[Course]
    metric: str
    who: str


def comparison_of(story: Story) -> Comparison:
    """Complete trials; of arms those that began at the initial model, or each beside those that it forked with.

    An arm that goes on from a better model is better, whatever its hyper-parameters are.
    """
    metric = story.study.spec.objective.metric
    scored = [
        course for course in story.courses if course.score is not None and not course.trial.details.get("discard")
    ]
    if not story.of_arms:
        complete = [course for course in scored if course.trial.state is TrialState.COMPLETED]
        return Comparison(complete, metric, "complete trials")
    trained = [course for course in scored if course.trial.rounds]
    begun_alike = [course for course in trained if not parents_of(course.trial)]
    if len(begun_alike) >= LEAST:
        return Comparison(begun_alike, metric, "arms that began at the initial model")
    return Comparison(
        _beside_one_another(trained), f"{metric} beside", "arms of forks, each beside the others of its fork"
    )


def _beside_one_another(courses: Sequence[Course]) -> list[Course]:
    """Those that were compared with others, with the difference to the mean of all of them as their score."""
    forks: dict[tuple[tuple[int, ...], int], list[Course]] = {}
    for course in courses:
        if parents_of(course.trial):
            key = parents_of(course.trial), int(course.trial.details.get("cohort", 0))
            forks.setdefault(key, []).append(course)
    found = []
    for fork in forks.values():
        scores = [course.score for course in fork if course.score is not None]
        if len(fork) > 1:
            found += [replace(c, score=c.score - fmean(scores)) for c in fork if c.score is not None]
    return found


def importances(
    space: Space, courses: Sequence[Course], direction: Literal["minimize", "maximize"]
) -> dict[str, float]:
    """The share of each hyper-parameter in what made trials good, by PED-ANOVA (Watanabe et al. 2023).

    The greatest first, 0 for what was the same in all; {} where there are too few trials, or nothing that differs.

    Args:
        space: The study's.
        courses: Trials whose values can be compared.
        direction: "minimize" or "maximize".
    """
    courses = [course for course in courses if space.contains(course.trial.hyperparameters)]
    if len(courses) < LEAST or len({course.score for course in courses}) < 2:
        return {}
    tried = [course.trial.hyperparameters for course in courses]
    common = [name for name in space.parameters if all(name in values for values in tried)]
    varied = [name for name in common if len({values[name] for values in tried}) > 1]
    if not varied:
        return {}
    optuna_trials = [
        optuna.trial.create_trial(
            params=dict(course.trial.hyperparameters),
            distributions=distributions_of(space, course.trial.hyperparameters),
            value=course.score,
        )
        for course in courses
    ]
    with without_info(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction=direction, storage=optuna.storages.InMemoryStorage())
        study.add_trials(optuna_trials)
        found = optuna.importance.get_param_importances(study, params=varied)
    return found | {name: 0.0 for name in common if name not in varied} if sum(found.values()) > 0 else {}
