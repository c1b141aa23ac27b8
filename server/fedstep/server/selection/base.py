"""The contract of a selector: who trains in a round."""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedstep.server.selection.draw import key_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """The clients that could train now, in columns [clients], by name.

    Seconds are a prediction for this round's work: its time is taken to be log-normal. nan stands where nothing is
    known: a client that was never measured is unknown, which is not slow.

    Attributes:
        names: Sorted, without repeats.
        keys: A number of each name, from `draw.key_of`: what draws are made with.
        train_samples: Size of the training set.
        validation_samples: Size of the validation set.
        steps: Local steps of this round's work, were there no bound.
        log_time: Mean of the logarithm of the seconds from dispatch to the update's arrival.
        log_time_sd: Standard deviation of that logarithm.
        step_s: Seconds of one local step, expected.
        beside_s: Seconds of all that is not steps, expected: transfers, and what else there is.
        loss: Root mean square of the training losses it last reported in this study.
        trained: Updates of it that this study has taken, in time or late.
        missed: Trainings of this study that it was asked for since it last trained, and that came to nothing.
        waited: Draws of this study since it last trained, or since the first.
        unasked: Draws of this study since it was last asked; one more than there were, if it never was.
        unmissed: The same since it was last asked for a training that came to nothing.
    """

    names: NDArray[np.object_]
    keys: NDArray[np.uint64]
    train_samples: Counts
    validation_samples: Counts
    steps: Counts
    log_time: Floats
    log_time_sd: Floats
    step_s: Floats
    beside_s: Floats
    loss: Floats
    trained: Counts
    missed: Counts
    waited: Counts
    unasked: Counts
    unmissed: Counts

    @classmethod
    def of(cls, names: Iterable[str], **columns: Any) -> "Candidates":
        """Candidates of these names, in any order; a column is one value a name or one for all, else nothing is known.

        Args:
            names: Without repeats.
            columns: By name; in the order of `names`.
        """
        given = np.array([*names], dtype=object)
        order = np.argsort(given, kind="stable")

        def column(name: str, default: float, kind: type) -> Any:
            return np.broadcast_to(np.asarray(columns.pop(name, default), dtype=kind), given.shape)[order].copy()

        made = cls(
            names=given[order],
            keys=np.array([key_of(name) for name in given[order]], dtype=np.uint64),
            **{name: column(name, 1, np.int64) for name in ("train_samples", "validation_samples", "steps")},
            **{name: column(name, np.nan, np.float64) for name in _UNKNOWN},
            **{name: column(name, 0, np.int64) for name in ("trained", "missed", "waited")},
            **{name: column(name, 1, np.int64) for name in ("unasked", "unmissed")},
        )
        if columns:
            raise TypeError(f"candidates have no columns {', '.join(columns)}")
        return made

    def __len__(self) -> int:
        return len(self.names)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Whose time can be predicted."""
        return np.isfinite(self.log_time)

    def find(self, names: Iterable[str]) -> list[int]:
        """Where these stand, in the order given; those who are no candidates are left out."""
        found = []
        for name in names:
            at = bisect_left(self.names, name)
            if at < len(self) and self.names[at] == name:
                found.append(at)
        return found


_UNKNOWN = ("log_time", "log_time_sd", "step_s", "beside_s", "loss")


@dataclass(frozen=True)
class SelectionContext:
    """What a selector may know besides the candidates.

    Attributes:
        trial: The trial's number.
        round: The round inside the trial.
        rng: Seeded for this study, round and attempt; the only source of randomness to use.
        over_selection: How many times `wanted` to ask, at least 1.
        deadline_s: The study's own deadline for a round, in seconds: none may take longer.
        attempt: The round's attempt, from 1.
        clients: Clients of the study that are there, busy ones included.
        takes_late: Whether a later round takes what comes after this one's end.
        draws: Cohorts that the study has drawn before, those drawn again for another arm not counted.
        earlier: Who was asked when this round was first drawn, for an arm that this one is compared with; () when it
            is drawn for the first time.
        waited_for: Of these, whom the round waited for.
    """

    trial: int
    round: int
    rng: np.random.Generator
    over_selection: float
    deadline_s: float
    attempt: int = 1
    clients: int = 0
    takes_late: bool = True
    draws: int = 0
    earlier: tuple[str, ...] = ()
    waited_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Who is asked, how many answers end the round, and when it ends anyhow.

    Attributes:
        cohort: Names, in the order of dispatch, without repeats.
        wanted: The round closes at this many updates; at most the size of the cohort.
        deadline_s: Seconds from dispatch to the end of the round.
        step_budgets: The most local steps of a client of the cohort; no bound for those that are not in it.
        latest_s: Where it is worth it, the end may be put off to so many seconds after dispatch; 0: never.
        unhurried: Clients of the cohort whom the end of the round does not stop: they do all their steps, and a later
            round takes their update at a discount, where the study takes late updates.
        waited_for: Clients of the cohort whose turn it is, and whom the round waits for.
        newcomers: Clients of the cohort who send what they have when enough others have answered, instead of being
            told that nobody wants it: a later round takes it, as with those that are unhurried.
        open_end: The deadline is the study's own, since nobody's time can be predicted: the round ends sooner where
            waiting for the rest brings fewer updates a second.
    """

    cohort: tuple[str, ...]
    wanted: int
    deadline_s: float
    step_budgets: Mapping[str, int] = field(default_factory=dict)
    latest_s: float = 0.0
    unhurried: Collection[str] = ()
    waited_for: Collection[str] = ()
    newcomers: Collection[str] = ()
    open_end: bool = False


@dataclass(frozen=True)
class Part:
    """One client's part in a round that was trained.

    Attributes:
        client: Its name.
        trained: Its update was taken.
        missed: It did not deliver in time, or failed.
        samples: Samples its update counted for.
        loss: Root mean square of the losses of its local steps; None where it is not known.
    """

    client: str
    trained: bool
    missed: bool = False
    samples: int = 0
    loss: float | None = None


@dataclass(frozen=True)
class RoundSeen:
    """A round of the study that was trained.

    Attributes:
        trial: The trial's number.
        round: The round inside the trial.
        parts: Everybody who was asked, in all attempts.
        seconds: Wall-clock time of the whole round.
        loss: The new model's loss on the evaluation cohort; None where it was not measured.
        late: Clients that an earlier round had missed, and whose updates of it this round has taken.
    """

    trial: int
    round: int
    parts: Sequence[Part] = ()
    seconds: float = 0.0
    loss: float | None = None
    late: Sequence[str] = ()


class Selector(ABC):
    """Chooses a round's cohort.

    What an implementation promises:

    - The cohort is a subset of the candidates; `wanted` is at least 1 and at most the cohort's size; the deadline is
      above 0 and, put off or not, at most the study's own; a step budget is at least 1 and its client in the cohort,
      as is whoever is unhurried, waited for or a newcomer.
    - The same candidates and context, after the same `observe`, give the same selection. `select` keeps nothing.
    - Whoever is in `context.earlier` and a candidate is in the cohort, before all others, as far as there is room. So
      arms that are compared are trained on the same clients, whatever was learnt between. A selector that learns
      nothing draws the same anyhow.
    - `observe` is all that it learns from. After a restart it is told again of every committed round, in the same
      order, and stands where it stood.
    - Nothing blocks: it is called on the event loop. Among 100,000 candidates it takes a few milliseconds.
    """

    @abstractmethod
    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """The cohort of one round.

        Args:
            candidates: At least one.
            wanted: Updates the round should bring; 0 for as many as there are candidates.
            context: The round.
        """

    def observe(self, seen: RoundSeen) -> None:
        """Takes in a round that was trained."""
        return

    def has_to_train_after(self, clients: int, closes_at: int) -> int:
        """Draws without training after which a client is a candidate even where it measures what is trained; 0: never.

        Args:
            clients: Those of the study, busy ones included.
            closes_at: At how many updates its rounds close.
        """
        return 0


def taken(candidates: Candidates, chosen: Sequence[int] | NDArray[np.intp]) -> tuple[str, ...]:
    """The names at these places, in this order."""
    return tuple(candidates.names[np.asarray(chosen, dtype=np.intp)].tolist())
