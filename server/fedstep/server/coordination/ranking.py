"""Which trial is the best."""

from collections.abc import Iterable, Sequence

from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import TrialRecord, TrialState


def searched_value(spec: StudySpec, trial: TrialRecord) -> float | None:
    """The trial's value after its search budget; the final rounds that only the best one gets do not count."""
    searched = trial.values[: spec.budget.rounds_per_trial]
    return searched[-1] if searched else None


def best_trial(spec: StudySpec, trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial by its value: complete ones before others, then the earliest; None when none has a value."""
    best: TrialRecord | None = None
    for trial in trials:
        value = searched_value(spec, trial)
        if value is None:
            continue
        incumbent = searched_value(spec, best) if best is not None else None
        if best is None or incumbent is None:
            best = trial
        elif _complete(trial) != _complete(best):
            best = trial if _complete(trial) else best
        elif spec.objective.better(value, incumbent):
            best = trial
    return best


def needed_models(spec: StudySpec, trials: Sequence[TrialRecord]) -> set[bytes]:
    """Digests of what a study goes on from, or ends with: models and optimizer states of open trials and the best."""
    best = best_trial(spec, trials)
    wanted = [trial for trial in trials if trial.state is TrialState.RUNNING or trial is best]
    return {digest for trial in wanted for digest in (trial.model_sha256, trial.optimizer_sha256)} - {b""}


def _complete(trial: TrialRecord) -> bool:
    return trial.state is TrialState.COMPLETED
