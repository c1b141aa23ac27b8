"""How far a study is: by trials where it trains one after the other, else by the rounds of its budget."""

from fedstep.common.phrases import count_text
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.ray_names import PAUSING, scheduler_of
from fedstep.server.tuning.spending import clients_asked, rounds_in_all

_OF_ARMS = frozenset({"stepwise", "fedex", "population", "fixed", "schedule", "outside"})
"""Tuners whose arms are no whole trials: `Tuner.per_trial` is False, which a test holds against these names. Asking the
classes would have every command import Optuna."""


def trains_trials(spec: StudySpec) -> bool:
    """Whether its tuner trains whole trials, at most `budget.trials` of them."""
    return spec.tuner.name not in _OF_ARMS and scheduler_of(spec) not in PAUSING


def by_trials(spec: StudySpec) -> bool:
    """Whether a study is a number of whole trials, and not a budget of rounds that its tuner spends as it likes."""
    budget = spec.budget
    return trains_trials(spec) and not (budget.rounds or budget.client_rounds or budget.payload_bytes)


def rounds_of_budget(spec: StudySpec) -> int | None:
    """The rounds that a study's budget pays for; None where only a clock or the traffic will tell."""
    budget = spec.budget
    told = budget.rounds or (budget.client_rounds and clients_asked(spec, {}))
    untold = budget.client_rounds or budget.payload_bytes or budget.time
    return None if untold and not told else rounds_in_all(spec)


def plan_text(spec: StudySpec) -> str:
    """What a study is going to do, in words."""
    budget = spec.budget
    if by_trials(spec):
        return f"{count_text(budget.trials, 'trial')} of {count_text(budget.rounds_per_trial, 'round')}"
    limits = [
        count_text(budget.rounds, "round") if budget.rounds else "",
        count_text(budget.client_rounds, "client-round") if budget.client_rounds else "",
        count_text(budget.payload_bytes, "byte") if budget.payload_bytes else "",
        f"{budget.time.total_seconds():,.0f} s" if budget.time else "",
    ]
    said = [limit for limit in limits if limit] or [f"{budget.rounds_of_trials:,} rounds"]
    return "a budget of " + " or ".join(said)


def progress_text(spec: StudySpec, trials: int, rounds: int) -> str:
    """How far a study is, in words.

    Args:
        spec: The study.
        trials: That have ended.
        rounds: That are committed.
    """
    if by_trials(spec):
        return f"{trials} of {spec.budget.trials} trials, {rounds} rounds"
    total = rounds_of_budget(spec)
    about = "" if total is None else f" of {'' if _counted_in_rounds(spec) else 'about '}{total}"
    return f"{rounds}{about} rounds, {trials} arms"


def _counted_in_rounds(spec: StudySpec) -> bool:
    """Whether its budget is a number of rounds and nothing else."""
    return not (spec.budget.client_rounds or spec.budget.payload_bytes or spec.budget.time)
