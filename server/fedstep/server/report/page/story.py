"""What a report is made from: plain records, whoever read them and from wherever."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from fedstep.server.report.cost import ByPurpose, ClientCost, PurposeCost, StudyCost
from fedstep.server.report.courses import Course, courses_of
from fedstep.server.report.lineage import Tree, has_arms, tree_of
from fedstep.server.report.participation import Share
from fedstep.server.storage.base import Event, StudyRecord, TrialRecord

LOSS, TRAIN_LOSS = "loss", "train_loss"


@dataclass(frozen=True)
class Holding:
    """What a client said it has; the data itself never leaves it.

    Attributes:
        client: Its name.
        train_samples: To train on.
        validation_samples: To measure on.
    """

    client: str
    train_samples: int
    validation_samples: int


@dataclass(frozen=True)
class ToldCost(ByPurpose):
    """What a study has cost, as `report.cost.StudyCost` and the protocol's message `Cost` tell it.

    Attributes:
        wall_seconds: That it was under way.
        purposes: What it was spent on; together they are all of it.
        clients: Who did the work.
        tuner_seconds: In the tuner's calls.
        tuner_cpu_seconds: The same, of the coordinator's CPU.
        cpu_seconds: Of the coordinator's CPU in all.
        added_cpu_seconds: Of these, what tuning adds, as it is estimated.
    """

    wall_seconds: float
    purposes: Sequence[PurposeCost]
    clients: Sequence[ClientCost]
    tuner_seconds: float
    tuner_cpu_seconds: float
    cpu_seconds: float
    added_cpu_seconds: float

    @property
    def added_seconds(self) -> float:
        """Of the wall-clock, what tuning adds."""
        return self.tuning.seconds + self.tuner_seconds

    @classmethod
    def of(cls, cost: StudyCost) -> "ToldCost":
        """What is told of a cost."""
        spent = cost.overhead
        seconds = spent.tuner_seconds, spent.tuner_cpu_seconds, spent.cpu_seconds, cost.added_cpu_seconds
        return cls(cost.wall_seconds, cost.purposes, cost.clients, *seconds)


@dataclass(frozen=True)
class ToldRound:
    """A committed round, as its event tells it."""

    trial: int
    round: int
    value: float | None
    metrics: Mapping[str, float]
    updates: int
    evaluators: int
    seconds: float
    time: datetime


@dataclass(frozen=True)
class Story:
    """A study with all that a report tells of it.

    Attributes:
        study: As it stood when it was asked for.
        trials: Its trials by number; the one that it ended with, or would end with, is "delivered".
        events: Everything that happened, in order.
        took_part: Who took part, in a sentence or two; "" where nobody was asked.
        shares: Every client's part; none where they are too many to be told one by one.
        holdings: What the clients that took part have.
        cost: What it has cost; None where that is not known.
        written_at: When the report is made.
        simulated: Where clients and time were simulated, the command that does it again, "" where none is known; else
            None.
    """

    study: StudyRecord
    trials: Sequence[TrialRecord]
    events: Sequence[Event]
    took_part: str
    shares: Sequence[Share]
    holdings: Sequence[Holding]
    cost: ToldCost | None
    written_at: datetime
    simulated: str | None = None

    @cached_property
    def of_arms(self) -> bool:
        """Whether its trials are arms that go on from one another."""
        return has_arms(self.trials)

    @cached_property
    def courses(self) -> list[Course]:
        """Its trials as they are drawn."""
        return courses_of(self.study, self.trials)

    @cached_property
    def tree(self) -> Tree:
        """Its arms, as far as the model that it ends with."""
        return tree_of(self.study, self.trials)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The trial that it ended with, or would end with now."""
        return self.tree.delivered

    @cached_property
    def rounds(self) -> list[ToldRound]:
        """Its rounds, in the order of their commits."""
        return [_round(event) for event in self.events if event.kind == "round_committed"]

    def of_kind(self, *kinds: str) -> list[Event]:
        """Its events of these kinds."""
        return [event for event in self.events if event.kind in kinds]

    def beside(self) -> "Story | None":
        """The same study by its loss, or by its training loss where that is its objective; None where it has none."""
        objective = self.study.spec.objective
        metric = TRAIN_LOSS if objective.metric == LOSS else LOSS
        measured = {(told.trial, told.round): told.metrics.get(metric) for told in self.rounds}
        if objective.metric == metric or not any(value is not None for value in measured.values()):
            return None
        beside = objective.model_copy(update={"metric": metric, "direction": "minimize"})
        best = self.best.number if self.best is not None else -1
        trials = [
            replace(
                trial,
                values=tuple(measured.get((trial.number, at)) for at in _rounds_of(trial)),
                details={**trial.details, "delivered": trial.number == best, "value": trial.metrics.get(metric)},
            )
            for trial in self.trials
        ]
        study = replace(self.study, spec=self.study.spec.model_copy(update={"objective": beside}))
        return replace(self, study=study, trials=trials)


def delivered(trials: Iterable[TrialRecord], number: int | None) -> list[TrialRecord]:
    """The trials, with that one marked as the one whose model the study ends with."""
    return [
        replace(trial, details={**trial.details, "delivered": True}) if trial.number == number else trial
        for trial in trials
    ]


def _rounds_of(trial: TrialRecord) -> range:
    """The numbers of a trial's rounds, as its events count them."""
    return range(trial.first_round, trial.first_round + trial.rounds)


def _round(event: Event) -> ToldRound:
    told = event.details
    metrics = {name: value for name, value in told.get("metrics", {}).items() if _is_number(value)}
    value = told.get("value")
    return ToldRound(
        trial=int(told.get("trial", -1)),
        round=int(told.get("round", 0)),
        value=None if value is None or not _is_number(value) else float(value),
        metrics=metrics,
        updates=int(told.get("updates", 0)),
        evaluators=int(told.get("evaluators", 0)),
        seconds=float(told.get("seconds", 0.0)),
        time=event.time,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
