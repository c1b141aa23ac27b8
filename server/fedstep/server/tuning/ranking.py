"""Which trial is the best: the one rule, for the study that delivers it and for the picture that marks it."""

import math
from collections.abc import Iterable

from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import TrialRecord


def best_trial(spec: StudySpec, trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial: the one the study ended with, else the earliest of the best value; None when none has one.

    Whether a trial was completed, pruned or cut off does not matter: its model is as good as it measures. One that only
    measured the initial model has none.
    """
    best: tuple[float, TrialRecord] | None = None
    for trial in trials:
        if trial.details.get("delivered"):
            return trial
        value = _searched_value(spec, trial)
        if value is None or not math.isfinite(value):
            continue
        if best is None or spec.objective.better(value, best[0]):
            best = value, trial
    return best[1] if best is not None else None


def is_untrained(trial: TrialRecord) -> bool:
    """Whether it was a measurement of the study's initial model."""
    return trial.details.get("rounds") == 0 and not trial.details.get("parents")


def _searched_value(spec: StudySpec, trial: TrialRecord) -> float | None:
    """The trial's value after its search budget; the final rounds that only the best one gets do not count."""
    if is_untrained(trial):
        return None
    if not trial.values or "rounds" in trial.details:  # an arm trains as many rounds as its tuner said, and no more
        return trial.value
    return trial.values[: spec.budget.rounds_per_trial][-1]
