"""How long a study will still take, by the pace of its rounds so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from fedstep.common.spec import StudySpec
from fedstep.server.coordination.account import Account, Mark
from fedstep.server.report.progress import rounds_of_budget, trains_trials
from fedstep.server.storage.base import Spent, TrialRecord, TrialState

_LATEST = 8
"""Rounds that the pace of now is taken from."""


@dataclass(frozen=True)
class ToCome:
    """What is still to be spent of one kind.

    Attributes:
        likely: As trials have gone so far.
        most: Where no trial is pruned any more.
    """

    likely: float
    most: float


@dataclass(frozen=True)
class TimeLeft:
    """Seconds to the end of a study, without the time that it may wait for clients."""

    about_s: float
    least_s: float
    most_s: float


def limits_of(spec: StudySpec) -> dict[str, float]:
    """What a study may spend, by the attributes of `Spent`, of those that are bounded; trials are not among them."""
    budget = spec.budget
    limits = {field.name: float(getattr(budget, field.name)) for field in fields(Spent)}
    if not trains_trials(spec) and not any(limits.values()) and budget.time is None:
        limits["rounds"] = float(rounds_of_budget(spec) or 0)
    return {name: limit for name, limit in limits.items() if limit}


def rounds_to_come(spec: StudySpec, trials: Iterable[TrialRecord]) -> ToCome:
    """The rounds that a study of whole trials is still to train, its final ones included.

    Args:
        spec: The study.
        trials: That there are.
    """
    budget = spec.budget
    known = list(trials)
    ended = [trial.rounds for trial in known if trial.state is not TrialState.RUNNING]
    running = [trial.rounds for trial in known if trial.state is TrialState.RUNNING]
    each = min(sum(ended) / len(ended), budget.rounds_per_trial) if ended else budget.rounds_per_trial
    new = max(0, budget.trials - len(known))
    final = budget.final_rounds - max((max(0, rounds - budget.rounds_per_trial) for rounds in ended), default=0)
    most = sum(max(0, budget.rounds_per_trial - rounds) for rounds in running)
    likely = sum(max(0.0, each - rounds) for rounds in running)
    return ToCome(likely + new * each + final, most + new * budget.rounds_per_trial + final)


def forecast(spec: StudySpec, account: Account, trials: Iterable[TrialRecord], now_s: float) -> TimeLeft | None:
    """How long a study will still take; None where nothing can be said yet.

    Args:
        spec: The study.
        account: What it has spent, and when.
        trials: That there are.
        now_s: Monotonic seconds.
    """
    to_come = {}
    for name, limit in limits_of(spec).items():
        left = max(0.0, limit - getattr(account.spent, name))
        to_come[name] = ToCome(left, left)
    if trains_trials(spec) and "rounds" not in to_come:
        to_come["rounds"] = rounds_to_come(spec, trials)
    time = spec.budget.time
    seconds_left = None if time is None else max(0.0, time.total_seconds() - account.seconds)
    return time_left(account.marks, to_come, now_s, seconds_left)


def time_left(
    marks: Sequence[Mark], to_come: Mapping[str, ToCome], now_s: float, seconds_left: float | None
) -> TimeLeft | None:
    """How long it will take to spend all of one kind; whichever is spent first ends the study.

    Args:
        marks: The ends of its rounds, the latest last.
        to_come: By the attributes of `Spent`.
        now_s: The time.
        seconds_left: Of its budget of time; None where that has no bound.

    Returns:
        None where nothing can be said: no round has ended.
    """
    found = [_spent_in(marks, name, amount, now_s) for name, amount in to_come.items()]
    ends = [left for left in found if left is not None]
    if seconds_left is not None:
        ends.append(TimeLeft(seconds_left, seconds_left, seconds_left))
    if not ends:
        return None
    return TimeLeft(*(min(getattr(left, field.name) for left in ends) for field in fields(TimeLeft)))


def _spent_in(marks: Sequence[Mark], name: str, amount: ToCome, now_s: float) -> TimeLeft | None:
    latest, all_ = _seconds_each(marks[-_LATEST - 1 :], name), _seconds_each(marks, name)
    if latest is None or all_ is None:
        return None
    # What has gone by of the round under way; one that takes longer than others holds the estimate up.
    since_s = min(now_s - marks[-1].at_s, latest * _step(marks[-_LATEST - 1 :], name))
    about_s = max(0.0, latest * amount.likely - since_s)
    least_s = max(0.0, min(latest, all_) * amount.likely - since_s)
    most_s = max(0.0, max(latest, all_) * amount.most - since_s)
    return TimeLeft(about_s, least_s, max(about_s, most_s))


def _seconds_each(marks: Sequence[Mark], name: str) -> float | None:
    """Seconds that one of it takes; None where none was spent."""
    spent = _spent_between(marks, name)
    return (marks[-1].at_s - marks[0].at_s) / spent if spent > 0 else None


def _step(marks: Sequence[Mark], name: str) -> float:
    """What is spent from a mark to the next."""
    return _spent_between(marks, name) / (len(marks) - 1)


def _spent_between(marks: Sequence[Mark], name: str) -> float:
    return float(getattr(marks[-1].spent, name) - getattr(marks[0].spent, name)) if len(marks) > 1 else 0.0
