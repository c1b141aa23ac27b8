"""The tree of a step-wise study's arms: what made the delivered model, and what became of all the others.

An arm goes on from the models of its parents. The delivered model's ancestors are its lineage; every other arm hangs
on it as a branch that was not taken.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import pairwise

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.storage.base import StudyRecord, TrialRecord, TrialState
from fedstep.server.tuning.ranking import best_trial

Point = tuple[int, float]
"""Rounds behind a model, and its objective."""


class Role(Enum):
    """What an arm is to the delivered model."""

    LINEAGE = auto()
    """It was trained on the way there."""
    AVERAGED = auto()
    """Its model went into a mean on the way there."""
    SCREENED = auto()
    """It began at the initial model, or goes on from such a one, and was left."""
    REJECTED = auto()
    """It was compared with an arm that went on, and was left."""
    REWOUND = auto()
    """It was gone back on: another arm went on from where it began."""
    FAILED = auto()
    """It could not go on."""
    RUNNING = auto()
    """It is under way."""
    MEASURED = auto()
    """A mean or an average that was only measured, and left."""
    ASKED = auto()
    """It was a question to the clients, whose updates were thrown away."""


@dataclass(frozen=True)
class Branch:
    """One arm in the tree.

    Attributes:
        trial: Its record.
        role: What it is to the delivered model.
        start: The last point that was measured before it; None where there is none.
        points: Measured in it: finite values, at the rounds behind the model.
    """

    trial: TrialRecord
    role: Role
    start: Point | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Stretch:
    """Rounds of the delivered model with one configuration.

    Attributes:
        first: Its first round, counted from 1.
        last: Its last round.
        trials: The arms that trained it, in order.
        phases: What they were for, each once.
        hyperparameters: The configuration.
        averaged: Configurations of the arms whose models were averaged with its own at its end.
    """

    first: int
    last: int
    trials: tuple[int, ...]
    phases: tuple[str, ...]
    hyperparameters: Hyperparameters
    averaged: tuple[Hyperparameters, ...] = ()


class Tree:
    """The arms of a study: `path` has those from the first one to the delivered one, `branches` all, by number.

    Args:
        trials: All of them; a parent that is not among them counts as the initial model.
        delivered: The arm whose model the study ends with, or would end with now; None where there is none.
    """

    def __init__(self, trials: Iterable[TrialRecord], delivered: int | None) -> None:
        self.trials: Mapping[int, TrialRecord] = {t.number: t for t in sorted(trials, key=lambda t: t.number)}
        self.delivered = self.trials.get(-1 if delivered is None else delivered)
        self.path = [] if self.delivered is None else way_to(self.trials, self.delivered.number)
        self._ancestors = self._all_ancestors()
        self._points = {number: _points(trial) for number, trial in self.trials.items()}
        self.branches = [
            Branch(trial, self._role(trial), self._start(trial), self._points[number])
            for number, trial in self.trials.items()
        ]

    def parents(self, trial: TrialRecord) -> list[TrialRecord]:
        """Those of an arm."""
        return _known_parents(self.trials, trial)

    def adoptions(self) -> list[Point]:
        """Where the lineage goes on with a challenger's configuration, and the last value measured before.

        Decided is what the next incumbent has. The weights may be another child's, and a learning rate that settles,
        or that was lowered after a rewind, is no challenger's. Nor is what a member of a population or a program
        outside takes over: nothing was compared there.
        """
        left = [b.trial for b in self.branches if b.role in (Role.REWOUND, Role.FAILED)]
        rewound = {(parents_of(trial), _cohort(trial)) for trial in left}
        starts = {branch.trial.number: branch.start for branch in self.branches}
        found = []
        for (before, *challengers), (now, *_) in pairwise(self._compared()):
            lowered = any(parents == parents_of(now) and cohort != _cohort(now) for parents, cohort in rewound)
            names = {*before.hyperparameters, *now.hyperparameters} - ({"lr"} if phase_of(now) == "settle" else set())
            changed = any(before.hyperparameters.get(name) != now.hyperparameters.get(name) for name in names)
            start = starts[now.number]
            if phase_of(before) == "fork" and challengers and changed and start is not None and not lowered:
                found.append((now.first_round, start[1]))
        return found

    def _compared(self) -> Iterator[list[TrialRecord]]:
        """Of every arm trained on the way, those that it was compared with: first the incumbent, which trains first."""
        groups: dict[tuple[tuple[int, ...], int], list[TrialRecord]] = {}
        for trial in self.trials.values():
            if trial.rounds and parents_of(trial):
                groups.setdefault((parents_of(trial), _cohort(trial)), []).append(trial)
        return (groups.get((parents_of(trial), _cohort(trial)), [trial]) for trial in self.path if trial.rounds)

    def schedule(self) -> list[Stretch]:
        """What the delivered model was trained with, from its first round to its last."""
        stretches: list[Stretch] = []
        for trial in self.path:
            if trial.rounds:
                stretches.append(
                    Stretch(
                        trial.first_round + 1,
                        trial.rounds_delivered,
                        (trial.number,),
                        (phase_of(trial),) if phase_of(trial) else (),
                        trial.hyperparameters,
                    )
                )
            elif stretches and len(self.parents(trial)) > 1:
                others = [self._trained(parent).hyperparameters for parent in self.parents(trial)[1:]]
                stretches[-1] = replace(stretches[-1], averaged=(*stretches[-1].averaged, *others))
        return _merged(stretches)

    def _all_ancestors(self) -> set[int]:
        found: set[int] = set()
        waiting = [self.delivered] if self.delivered is not None else []
        while waiting:
            trial = waiting.pop()
            if trial.number not in found:
                found.add(trial.number)
                waiting += self.parents(trial)
        return found

    def _trained(self, trial: TrialRecord) -> TrialRecord:
        """The arm that was trained to this model: itself, or the first one up from it."""
        while not trial.rounds and self.parents(trial):
            trial = self.parents(trial)[0]
        return trial

    def _start(self, trial: TrialRecord) -> Point | None:
        while parents := self.parents(trial):
            trial = parents[0]
            if self._points[trial.number]:
                return self._points[trial.number][-1]
        return None

    def _role(self, trial: TrialRecord) -> Role:
        if trial.details.get("discard"):
            return Role.ASKED
        if trial.number in self._ancestors:
            return Role.LINEAGE if any(trial is one for one in self.path) else Role.AVERAGED
        if trial.state is TrialState.FAILED:
            return Role.FAILED
        if trial.state is TrialState.RUNNING:
            return Role.RUNNING
        if is_measured_only(trial):
            return Role.MEASURED
        left = trial  # the arm that left the lineage
        while (parents := self.parents(left)) and parents[0].number not in self._ancestors:
            left = parents[0]
        if self._was_gone_back_on(left):
            return Role.REWOUND
        return Role.REJECTED if parents else Role.SCREENED

    def _was_gone_back_on(self, trial: TrialRecord) -> bool:
        """Whether an arm of a later comparison went on from where this one began."""
        others = [one for one in self.path if parents_of(one) == parents_of(trial) and one.rounds]
        return any(one.number > trial.number and _cohort(one) != _cohort(trial) for one in others)


def tree_of(study: StudyRecord, trials: Sequence[TrialRecord]) -> Tree:
    """The arms of a study, up to the one that it ended with, or would end with now."""
    ending = best_trial(study.spec, trials)
    return Tree(trials, ending.number if ending is not None else None)


def parents_of(trial: TrialRecord) -> tuple[int, ...]:
    """The numbers of the arms that it goes on from."""
    return tuple(int(number) for number in trial.details.get("parents", ()))


def way_to(trials: Mapping[int, TrialRecord], number: int) -> list[TrialRecord]:
    """The arm and those that it goes on from, the earliest first: through the first one of several parents.

    Args:
        trials: By number; a parent that is not among them counts as the initial model.
        number: The arm.
    """
    way = [trials[number]]
    while parents := _known_parents(trials, way[-1]):
        way.append(parents[0])
    return way[::-1]


def _known_parents(trials: Mapping[int, TrialRecord], trial: TrialRecord) -> list[TrialRecord]:
    return [trials[number] for number in parents_of(trial) if number in trials]


def phase_of(trial: TrialRecord) -> str:
    """What the arm is for; "" where its tuner does not say."""
    return str(trial.details.get("phase", ""))


def is_measured_only(trial: TrialRecord) -> bool:
    """Whether it trains no round."""
    return trial.details.get("rounds") == 0


def has_arms(trials: Iterable[TrialRecord]) -> bool:
    """Whether these are arms of a step-wise tuner and no plain trials."""
    return any({"parents", "phase", "rounds"} & trial.details.keys() for trial in trials)


def _points(trial: TrialRecord) -> tuple[Point, ...]:
    values = trial.values or (trial.details.get("value"),)
    first = trial.first_round + (1 if trial.values else 0)
    return tuple((first + i, value) for i, value in enumerate(values) if value is not None and math.isfinite(value))


def _cohort(trial: TrialRecord) -> int:
    return int(trial.details.get("cohort", 0))


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Stretches that go on with the same configuration are one."""
    merged: list[Stretch] = []
    for stretch in stretches:
        before = merged[-1] if merged else None
        if before and not before.averaged and before.hyperparameters == stretch.hyperparameters:
            phases = tuple(dict.fromkeys((*before.phases, *stretch.phases)))
            trials = (*before.trials, *stretch.trials)
            merged[-1] = replace(stretch, first=before.first, trials=trials, phases=phases)
        else:
            merged.append(stretch)
    return merged
