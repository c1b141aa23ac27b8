"""The decisions of a study in order, each with its evidence and what it changed."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.spec import Plugin
from fedstep.server.report.lineage import parents_of, phase_of
from fedstep.server.report.words import number_text, say
from fedstep.server.storage.base import Event, TrialRecord

_NOT_DECIDED = ("study_", "trial_", "round_", "client", "update_", "late_", "report_", "waiting_", "held_out_")
"""How the kinds of events begin that are no decisions; a tuner's own kinds are all others."""

_DECIDED_ALL_THE_SAME = ("trial_pruned", "trial_failed")
_MEDIAN_PRUNER = "MedianPruner"
"""Also what prunes where a study of Optuna's names nothing."""
_CHANGING = ("adoption", "rejection", "rewind", "exploitation")

Change = tuple[Value | None, Value | None]
"""A hyper-parameter before and after; None where it does not exist."""


@dataclass(frozen=True)
class Decision:
    """Something that a tuner decided.

    Attributes:
        event: As it was told: kind, one sentence, evidence.
        round: Rounds of the study committed until then.
        phase: Of the arm that was trained last until then; "" where there are no phases.
        evidence: The numbers it rests on, by name.
        changes: Of hyper-parameters, by name: what was adopted, or was rejected, against what there was.
    """

    event: Event
    round: int
    phase: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)


def decisions_of(events: Iterable[Event], trials: Mapping[int, TrialRecord], tuner: Plugin) -> list[Decision]:
    """All decisions of a study.

    Args:
        events: All of its events, in order.
        trials: Its trials by number.
        tuner: As the study names it.
    """
    found: list[Decision] = []
    rounds, phase = 0, ""
    completed: set[int] = set()
    by_median = prunes_by_median(tuner)
    for event in events:
        if event.kind == "round_committed":
            rounds += 1
            trial = trials.get(_number(event.details.get("trial")))
            phase = phase_of(trial) if trial is not None else phase
        elif event.kind == "trial_completed":
            completed.add(_number(event.details.get("trial")))
        elif is_decision(event.kind):
            beside = completed if by_median and event.kind == "trial_pruned" else ()
            found.append(Decision(event, rounds, phase, _evidence(event, trials, beside), _changes(event, trials)))
    return found


def prunes_by_median(tuner: Plugin) -> bool:
    """Whether a trial is pruned that is worse than the median of the completed ones: Optuna's MedianPruner."""
    return tuner.name == "optuna" and tuner.options.get("pruner", _MEDIAN_PRUNER) == _MEDIAN_PRUNER


def none_decided(tuner: Plugin) -> str:
    """What is said of a study without decisions."""
    if tuner.name == "outside":
        return "The program that steps the runs decides, and what moves it is its own."
    return f"The tuner {tuner.name} has ended no trial early, and has changed nothing on the way."


def is_decision(kind: str) -> bool:
    """Whether events of this kind tell a decision."""
    return kind in _DECIDED_ALL_THE_SAME or not kind.startswith(_NOT_DECIDED)


def changes_between(before: Hyperparameters, after: Hyperparameters) -> dict[str, Change]:
    """What differs, by name."""
    names = dict.fromkeys((*before, *after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def changes_text(changes: Mapping[str, Change]) -> str:
    """What differs in one line: `lr 0.05 → 0.081, momentum none → 0.9`."""

    def said(value: Value | None) -> str:
        return "none" if value is None else say(value, 30)

    return ", ".join(f"{name} {said(before)} → {said(after)}" for name, (before, after) in changes.items())


def evidence_text(evidence: Mapping[str, float]) -> str:
    """The numbers in one line; a paired comparison's first: `z −1.93, mean difference −0.0312, n 20`."""
    names = {
        "z": "z",
        "mean_difference": "mean difference",
        "difference_in_equal_time": "mean difference of improvements in equal time",
        "clients": "n",
        "n": "n",
    }
    order = [*(name for name in names if name in evidence), *(name for name in evidence if name not in names)]
    return ", ".join(f"{names.get(name, name.replace('_', ' '))} {_short(evidence[name])}" for name in order)


def median_text(evidence: Mapping[str, float]) -> str:
    """Beside what a trial was pruned: `0.5200, the median of 3 completed trials`."""
    count = round(evidence["completed"])
    trials = "the one completed trial" if count == 1 else f"the median of {count} completed trials"
    return f"{number_text(evidence['median_of_completed'])}, {trials}"


def _evidence(event: Event, trials: Mapping[int, TrialRecord], beside: Collection[int]) -> dict[str, float]:
    """The plain numbers of its details; of a trial what it had, and what those beside it had at that round."""
    if event.kind in _DECIDED_ALL_THE_SAME:
        return _of_trial(_number(event.details.get("trial")), trials, beside)
    numbers = {name: value for name, value in event.details.items() if type(value) in (int, float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _of_trial(number: int, trials: Mapping[int, TrialRecord], beside: Collection[int]) -> dict[str, float]:
    trial = trials.get(number)
    if trial is None or not trial.rounds:
        return {}
    found: dict[str, float] = {"rounds": trial.rounds}
    if trial.value is not None and math.isfinite(trial.value):
        found["value"] = trial.value
    at = trial.rounds - 1
    values = [trials[other].values[at] for other in beside if other in trials and trials[other].rounds > at]
    others = [value for value in values if value is not None and math.isfinite(value)]
    if others:
        found |= {"median_of_completed": median(others), "completed": len(others)}
    return found


def _changes(event: Event, trials: Mapping[int, TrialRecord]) -> dict[str, Change]:
    """Of what was adopted or rejected against the incumbent, of who took over a model against whose it was; after a
    rewind of what goes on against what was left."""
    arms = event.details.get("arms", ())
    numbers = [_number(arm) for arm in arms] if isinstance(arms, list | tuple) else []
    if event.kind not in _CHANGING or not numbers or not all(number in trials for number in numbers):
        return {}
    if event.kind == "rewind":
        return _rewound(trials[numbers[-1]], trials)
    if len(numbers) < 2:
        return {}
    challenger, incumbent = trials[numbers[0]], trials[numbers[1]]
    return changes_between(incumbent.hyperparameters, challenger.hyperparameters)


def _rewound(left: TrialRecord, trials: Mapping[int, TrialRecord]) -> dict[str, Change]:
    """From what was left to the next arm that was trained from where that one began."""
    start = parents_of(_trained(left, trials))
    generation = left.details.get("cohort", 0)  # a challenger beside it has the same parents, and the same cohort
    later = (
        one
        for one in trials.values()
        if one.number > left.number and not 0 < one.details.get("cohort", 0) == generation
    )
    ahead = sorted((one for one in later if one.rounds and parents_of(one) == start), key=lambda one: one.number)
    goes_on = ahead[0] if ahead else None
    return {} if goes_on is None else changes_between(left.hyperparameters, goes_on.hyperparameters)


def _trained(trial: TrialRecord, trials: Mapping[int, TrialRecord]) -> TrialRecord:
    """The arm itself, or, of a mean that was only measured, the first it is a mean of."""
    while trial.details.get("rounds") == 0 and parents_of(trial) and parents_of(trial)[0] in trials:
        trial = trials[parents_of(trial)[0]]
    return trial


def _number(value: Any) -> int:
    """A trial's number as it stands in an event's details, where all numbers are real; -1 for none."""
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else -1


def _short(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}".replace("-", "−")
