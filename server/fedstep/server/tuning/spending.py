"""What a study may spend, counted in rounds, for tuners that plan all of it ahead."""

import math

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Cost

_ROUNDING = 1e-9


def clients_asked(spec: StudySpec, point: Hyperparameters) -> int:
    """How many clients a round at that point asks to train; 0 where it asks everybody.

    A buffered round asks one for every update that was taken; an arm's first one some more, which end with the arm.
    """
    fixed = {**spec.hyperparameters, **point}
    wanted = int(fixed.get("cohort_size") or spec.round.cohort_size)
    if spec.round.buffered:
        return spec.round.buffer_size or wanted
    return math.ceil(wanted * spec.over_selection - _ROUNDING)


def rounds_in_all(spec: StudySpec) -> int:
    """Rounds that the budget pays for: at least 1.

    Where it is set in neither rounds nor client-rounds, those of all trials. Time and bytes cannot be told ahead.
    """
    limits = _limits(spec, Cost(), clients_asked(spec, {}))
    return max(1, min(limits, default=spec.budget.rounds_of_trials))


def rounds_left(spec: StudySpec, spent: Cost) -> int:
    """Rounds that the budget still pays for; may be 0, and is at least 1 before the first.

    Args:
        spec: The study.
        spent: The cost of everything so far, from which the clients of a round are learnt where it asks everybody.
    """
    clients = clients_asked(spec, {}) or (math.ceil(spent.client_rounds / spent.rounds) if spent.rounds else 0)
    limits = _limits(spec, spent, clients)
    least = 0 if spent.rounds else 1
    return max(least, min(limits, default=spec.budget.rounds_of_trials - spent.rounds))


def _limits(spec: StudySpec, spent: Cost, clients: int) -> list[int]:
    """Rounds left by each budget that is set and can be told."""
    limits = []
    if spec.budget.rounds:
        limits.append(spec.budget.rounds - spent.rounds)
    if spec.budget.client_rounds and clients:
        limits.append((spec.budget.client_rounds - spent.client_rounds) // clients)
    return limits
