"""Which models a study needs."""

from collections.abc import Sequence, Set

from fedstep.common.spec import StudySpec
from fedstep.server.coordination.final_rounds import as_delivered
from fedstep.server.storage.base import TrialRecord, TrialState
from fedstep.server.tuning.ranking import best_trial


def needed_models(spec: StudySpec, trials: Sequence[TrialRecord], kept: Set[int] = frozenset()) -> set[bytes]:
    """Digests of what a study goes on from, or ends with: models and what is beside them.

    Args:
        spec: The study.
        trials: All of its trials. Open ones and the best one are needed, of its final rounds the best too.
        kept: Those that the tuner may go on from.
    """
    # Among those that have ended: one under way may be ahead for a while, and the best ended one is needed after all.
    best = best_trial(spec, [trial for trial in trials if trial.state is not TrialState.RUNNING])
    wanted = [t for t in trials if t.state is TrialState.RUNNING or t is best or t.number in kept]
    wanted += [as_delivered(trial) for trial in wanted]
    return {digest for trial in wanted for digest in (trial.model_sha256, trial.optimizer_sha256)} - {b""}
