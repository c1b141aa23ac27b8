"""Which trial is the best."""

from collections.abc import Iterable, Sequence, Set

from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import TrialRecord, TrialState


def searched_value(spec: StudySpec, trial: TrialRecord) -> float | None:
    """The trial's value after its search budget; the final rounds that only the best one gets do not count."""
    if not trial.values:
        return trial.value
    searched = trial.values[: spec.budget.rounds_per_trial]
    return searched[-1] if searched else None


def best_trial(spec: StudySpec, trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial: the one the study ended with, else the earliest of the best value; None when none has one.

    Whether a trial was completed, pruned or cut off does not matter: its model is as good as it measures.
    """
    best: TrialRecord | None = None
    for trial in trials:
        if trial.details.get("delivered"):
            return trial
        value = searched_value(spec, trial)
        if value is None:
            continue
        incumbent = searched_value(spec, best) if best is not None else None
        if best is None or incumbent is None or spec.objective.better(value, incumbent):
            best = trial
    return best


def needed_models(spec: StudySpec, trials: Sequence[TrialRecord], kept: Set[int] = frozenset()) -> set[bytes]:
    """Digests of what a study goes on from, or ends with: models and what is beside them.

    Args:
        spec: The study.
        trials: All of its trials. Open ones and the best one are needed.
        kept: Those that the tuner may go on from.
    """
    # Among those that have ended: one under way may be ahead for a while, and the best ended one is needed after all.
    best = best_trial(spec, [trial for trial in trials if trial.state is not TrialState.RUNNING])
    wanted = [t for t in trials if t.state is TrialState.RUNNING or t is best or t.number in kept]
    return {digest for trial in wanted for digest in (trial.model_sha256, trial.optimizer_sha256)} - {b""}
