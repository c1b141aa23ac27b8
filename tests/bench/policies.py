"""What the benchmark `deadlines` compares: policies by the names of their selectors, and what came of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin, RoundPolicy, StudySpec
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.selection.registry import validate_selector
from fedstep.server.storage.base import AssignmentRecord

DEFAULT = "default"
"""A policy of this name is what a study gets that names no selector."""

FEDBUFF = "fedbuff"
"""A policy of this name has buffered rounds, and the selector that these have by default."""


@dataclass(frozen=True)
class Terms:
    """What every policy's study has in common.

    Attributes:
        rounds: At most.
        seconds: No round begins after.
        cohort: Updates that a round waits for, where the selector heeds it.
        lr: Of the local training.
        epochs: Of the local training.
        measure: How many clients measure each round's model.
    """

    rounds: int
    seconds: float
    cohort: int
    lr: float
    epochs: int
    measure: int = 0


@dataclass(frozen=True)
class Policy:
    """A selector and the terms of a round.

    Attributes:
        text: As it was written: SELECTOR[:KEY=VALUE…]. A key is one of the table [round], or an option of the selector;
            `fedbuff` and `default` stand for a selector too.
    """

    text: str

    def tables(self) -> dict[str, Any]:
        """What a study file would say of it."""
        name, *pairs = self.text.split(":")
        options = {key: _value(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        policy = {key: value for key, value in options.items() if key in RoundPolicy.model_fields}
        rest = {key: value for key, value in options.items() if key not in policy}
        if name == FEDBUFF:
            policy = {"mode": "buffered", **policy}
        return {"round": policy, **({} if name in (DEFAULT, FEDBUFF) else {"selector": {"name": name, **rest}})}

    @property
    def exists(self) -> bool:
        """Whether there is such a selector in this version."""
        try:
            validate_selector(Plugin.model_validate(self.tables().get("selector", {"name": "random"})))
        except InvalidInputError:
            return False
        return True

    def study(self, task: str, terms: Terms, seed: int, clients: int) -> StudySpec:
        """One training without tuning; without measuring too unless the terms ask for it.

        Args:
            task: Its name.
            terms: Of the study.
            seed: Of everything.
            clients: How many must be there before it begins.
        """
        tables = self.tables()
        return StudySpec.model_validate(
            {
                "name": "deadlines",
                "task": task,
                "seed": seed,
                "space": {"lr": {"low": 0.001, "high": 1.0, "log": True}},
                "tuner": {"name": "fixed", "hyperparameters": {"lr": terms.lr}},
                "aggregator": {"name": "fedavg"},
                "evaluation": {"cohort_size": terms.measure, "held_out": False},
                "objective": {"metric": "train_loss", "direction": "minimize"},
                "hyperparameters": {"local_epochs": terms.epochs},
                "budget": {
                    "trials": 1,
                    "rounds_per_trial": terms.rounds,
                    "rounds": terms.rounds,
                    "time": f"{terms.seconds:g}s",
                },
                **tables,
                "round": {"cohort_size": terms.cohort, "min_clients": clients, **tables["round"]},
            }
        )


@dataclass(frozen=True)
class Waits:
    """How long clients waited to be trained: from the start, from one update of theirs to the next, and to the end.

    Attributes:
        longest_s: Of the client that waited longest, in seconds.
        longest_rounds: The same in rounds.
        never: Clients that were never trained.
    """

    longest_s: float
    longest_rounds: int
    never: int

    @classmethod
    def of(
        cls,
        clients: Sequence[str],
        asked: Iterable[AssignmentRecord],
        ended_s: Mapping[int, float],
        late: Iterable[TakenLate] = (),
    ) -> Self:
        """The waits of some clients.

        Args:
            clients: Their names.
            asked: Every training.
            ended_s: When each committed round ended, in seconds since the study began.
            late: Late updates that later rounds took.
        """
        rounds = sorted(ended_s)
        trained = trained_in(asked, late)
        longest_s, longest_rounds = 0.0, 0
        for name in clients:
            turns = [number for number in rounds if (name, number) in trained]
            edges = [-1, *turns, len(rounds)]
            times = [0.0, *(ended_s[number] for number in turns), max(ended_s.values(), default=0.0)]
            longest_rounds = max(longest_rounds, *(after - before for before, after in pairwise(edges)))
            longest_s = max(longest_s, *(after - before for before, after in pairwise(times)))
        return cls(longest_s, longest_rounds, len(set(clients) - {name for name, _ in trained}))


@dataclass(frozen=True)
class Ran:
    """What came of a policy.

    Attributes:
        policy: As it was written.
        seconds: When each round ended, since the study began.
        accuracy: Of the model then, on data that nobody trains on.
        rounds: Rounds committed.
        everyone: The last model's accuracy on all clients' own data.
        slow: The same on the slow clients'.
        waits: How long clients waited to be trained.
        assignments: All training that was asked for.
        ended: How the study ended, where that was not as it should.
        there: Of each client that was never trained, at the start of how many rounds it was there; nothing where that
            is not known.
    """

    policy: str
    seconds: Sequence[float]
    accuracy: Sequence[float]
    rounds: int
    everyone: float
    slow: float
    waits: Waits
    assignments: Sequence[AssignmentRecord] = field(default=(), repr=False)
    ended: str = ""
    there: Sequence[int] = ()

    def reached_s(self, target: float) -> float | None:
        """When the accuracy was there for the first time."""
        return next((s for s, a in zip(self.seconds, self.accuracy, strict=True) if a >= target), None)

    def outcomes(self) -> dict[str, int]:
        """How many trainings ended how."""
        kinds, counts = np.unique([a.status for a in self.assignments], return_counts=True)
        return dict(zip(kinds.tolist(), counts.tolist(), strict=True))


def trained_in(asked: Iterable[AssignmentRecord], late: Iterable[TakenLate]) -> set[tuple[str, int]]:
    """Who has trained, and in which round that counted: a late update does in the round that took it."""
    in_time = {(part.client, part.round) for part in asked if part.status == "accepted"}
    return in_time | {(taken.client, taken.taken_in) for taken in late}


def chosen(texts: Iterable[str]) -> list[Policy]:
    """The policies that this version can run; the others are named."""
    policies = [Policy(text) for text in texts]
    for policy in policies:
        if not policy.exists:
            print(f"passed over: {policy.text} (no such selector in this version)")
    return [policy for policy in policies if policy.exists]


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
