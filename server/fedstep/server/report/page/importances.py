"""How much each hyper-parameter mattered, as Optuna computes it from a study's trials."""

import warnings
from collections.abc import Sequence
from typing import Literal

import optuna

from fedstep.common.space import Space
from fedstep.server.report.courses import Course
from fedstep.server.storage.base import TrialState
from fedstep.server.tuning.optuna_space import distributions_of

LEAST = 4
"""Trials below which nothing is said."""


def comparable(courses: Sequence[Course]) -> list[Course]:
    """The trials whose values can be compared: complete, or of arms those that began at the initial model alike."""
    arms = [course for course in courses if course.trial.details]
    begun_alike = [
        course
        for course in arms
        if course.trial.rounds and not course.trial.details.get("parents") and not course.trial.details.get("discard")
    ]
    plain = [course for course in courses if course.trial.state is TrialState.COMPLETED]
    found = begun_alike if any("phase" in course.trial.details for course in arms) else plain
    return [course for course in found if course.score is not None]


def importances(
    space: Space, courses: Sequence[Course], direction: Literal["minimize", "maximize"]
) -> dict[str, float]:
    """The share of each hyper-parameter in what made trials good, by PED-ANOVA (Watanabe et al. 2023).

    The greatest first; {} where there are too few trials, or nothing that differs between them.

    Args:
        space: The study's.
        courses: Trials whose values can be compared.
        direction: "minimize" or "maximize".
    """
    if len(courses) < LEAST or len({course.score for course in courses}) < 2:
        return {}
    optuna_trials = [
        optuna.trial.create_trial(
            params=dict(course.trial.hyperparameters),
            distributions=distributions_of(space, course.trial.hyperparameters),
            value=course.score,
        )
        for course in courses
    ]
    study = optuna.create_study(direction=direction, storage=optuna.storages.InMemoryStorage())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.add_trials(optuna_trials)
        found = optuna.importance.get_param_importances(study)
    return found if sum(found.values()) > 0 else {}
