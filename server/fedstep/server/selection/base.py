"""The contract of a selector: who trains in a round."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """A client that could train now.

    Attributes:
        name: Its name.
        train_samples: Size of its training set.
        rounds_trained: Updates of it that this study has taken.
    """

    name: str
    train_samples: int
    rounds_trained: int = 0


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may know besides the candidates.

    Attributes:
        trial: The trial's number.
        round: The round inside the trial.
        rng: Seeded for this study, trial, round and attempt; the only source of randomness to use.
        over_selection: How many times `wanted` to ask, at least 1.
        deadline_s: The study's own deadline for a round, in seconds.
    """

    trial: int
    round: int
    rng: np.random.Generator
    over_selection: float
    deadline_s: float


@dataclass(frozen=True)
class Selection:
    """Who is asked, how many answers end the round, and when it ends anyhow.

    Attributes:
        cohort: Names, in the order of dispatch, without repeats.
        wanted: The round closes at this many updates; at most the size of the cohort.
        deadline_s: Seconds from dispatch to the end of the round.
        step_budgets: The most local steps of a client, where it is to take fewer than the others.
        latest_s: Where it is worth it, the end may be put off to so many seconds after dispatch; 0: never.
    """

    cohort: tuple[str, ...]
    wanted: int
    deadline_s: float
    step_budgets: Mapping[str, int] = field(default_factory=dict)
    latest_s: float = 0.0


class Selector(ABC):
    """Chooses a round's cohort.

    What an implementation promises: the cohort is a subset of the candidates; `wanted` is at least 1 and at most
    the cohort's size; the order of the candidates does not matter; the same candidates and the same generator give
    the same selection; nothing blocks and nothing is kept that `candidates` and `context` do not hold.
    """

    @abstractmethod
    def select(self, candidates: Sequence[Candidate], wanted: int, context: SelectionContext) -> Selection:
        """The cohort of one round.

        Args:
            candidates: At least one.
            wanted: Updates the round should bring; 0 for as many as there are candidates.
            context: The round.
        """
