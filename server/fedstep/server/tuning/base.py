"""The contract of a tuner: who decides what is trained next."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from operator import add, sub
from typing import Any, ClassVar, Protocol

from fedstep.common.amounts import fieldwise
from fedstep.common.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Arm:
    """A stretch of federated training, under a number of its own: whose model it starts from, and how it trains.

    Most arms are whole trials: they start from the study's initial model and train all the rounds of a trial. A
    step-wise tuner goes on from an earlier arm's model instead, with other hyper-parameters, for a few rounds.

    Attributes:
        number: The trial's number, from 0, never given twice in a study.
        hyperparameters: A point of the study's space; fixed values are not in it.
        parents: The arms it starts from, their last models and server-optimizer states: one goes on or forks, several
            are averaged. None: the study's initial model. A parent has ended, and its tuner keeps it (`Tuner.keeps`).
        rounds: Rounds it trains; 0 to be measured only. None: those of a trial, `budget.rounds_per_trial`.
        phase: What it is for, such as "screen", for people.
        cohort: Which evaluation cohort measures it; arms that are compared have the same.
        alone: No other arm trains beside it, to be compared with it.
        every_round: Whether every round's model is measured, or only the last one's.
        measured: Whether its model is measured at all; False where no decision reads its value.
        average: Keeps an exponential average of the model, of this decay a round; 0 keeps none.
        of_average: Starts from its parent's averaged model.
        points: The cohort's clients train with one of these each, dealt in order; empty: all with `hyperparameters`.
        max_steps: Local steps after which a client stops; 0 for no bound.
        local_validation: Clients measure the model on their validation sets before and after training it.
        discard: The updates are thrown away: it is a question to the clients, not a training.
        clients: How many clients a round wants; 0 for the study's own number.
    """

    number: int
    hyperparameters: Hyperparameters
    parents: tuple[int, ...] = ()
    rounds: int | None = None
    phase: str = ""
    cohort: int = 0
    alone: bool = False
    every_round: bool = True
    measured: bool = True
    average: float = 0.0
    of_average: bool = False
    points: tuple[Hyperparameters, ...] = ()
    max_steps: int = 0
    local_validation: bool = False
    discard: bool = False
    clients: int = 0


class Prices(Protocol):
    """What a round is expected to take, as far as the fleet's pace is known; nothing in it changes any more."""

    def round_s(self, point: Hyperparameters) -> float | None:
        """Seconds that a round at that point takes, its measurement included; None while no pace is known."""


class Unpriced(Prices):
    """Nothing is known of any pace."""

    def round_s(self, point: Hyperparameters) -> float | None:
        """See `Prices.round_s`."""
        return None


@dataclass(frozen=True)
class ProposeContext:
    """What a tuner may know when it proposes.

    Attributes:
        slots: Arms that could start now; at least 1.
        next_number: The number of the first new arm; the following ones count up from it.
        open_arms: Arms proposed earlier and not finished.
        prices: What rounds are expected to take: as it stands now, to be asked in any thread.
    """

    slots: int
    next_number: int
    open_arms: Sequence[int] = ()
    prices: Prices = field(default_factory=Unpriced)


@dataclass(frozen=True)
class ClientReport:
    """What one client of the training cohort told of its part.

    Attributes:
        name: The client.
        point: The position of its configuration in `Arm.points`.
        diverged: Its loss ran away, and it was stopped.
        samples: Its weight in the mean; 0 when its update was not taken.
        losses: Of its local steps.
        step_ms: Milliseconds each of them took.
        loss_before: Of the model it received, on its validation set; None unless asked for.
        loss_after: Of the model it trained.
        validation_samples: Size of that set.
    """

    name: str
    point: int = 0
    diverged: bool = False
    samples: int = 0
    losses: tuple[float, ...] = ()
    step_ms: tuple[float, ...] = ()
    loss_before: float | None = None
    loss_after: float | None = None
    validation_samples: int = 0


@dataclass(frozen=True)
class Cost:
    """What training has cost.

    Attributes:
        rounds: Rounds; two that ran at the same time count twice.
        client_rounds: Updates that were asked for, in all attempts of a round.
        payload_bytes: Bytes of the models and updates that travelled.
        seconds: Wall-clock time; of rounds that ran at the same time, each its own.
        update_bytes: Of `payload_bytes`, those of updates.
    """

    rounds: int = 0
    client_rounds: int = 0
    payload_bytes: int = 0
    seconds: float = 0.0
    update_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return fieldwise(add, self, other)

    def __sub__(self, other: "Cost") -> "Cost":
        return fieldwise(sub, self, other)


@dataclass(frozen=True)
class Observation:
    """What one round of one arm gave.

    Attributes:
        number: The arm.
        round: From 0, inside the arm.
        value: The study's objective after the round; None when the round gave none.
        metrics: Every metric of the evaluation.
        last: The arm has no round left: it is complete after this one.
        failed: The arm cannot go on (its training diverged, its rounds failed), in one sentence; "" when it can.
        losses: The evaluation's loss by client; empty where the round was not measured.
        clients: What the training cohort told, in the order of its dispatch.
        cost: Of this round.
    """

    number: int
    round: int
    value: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    last: bool = False
    failed: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    clients: Sequence[ClientReport] = ()
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Note:
    """A decision of a tuner with its evidence, for people: it becomes an event of the study.

    Attributes:
        kind: "window", "elimination", "adoption", "rejection", "too_dear", "rewind", "settling", "averaging",
            "delivery", or a tuner's own.
        text: One sentence.
        details: The evidence, of JSON types: z, mean difference, n, clients, arms.
    """

    kind: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Decision(StrEnum):
    """What becomes of an arm after a round."""

    CONTINUE = "continue"
    PRUNE = "prune"
    FINISH = "finish"
    FAIL = "fail"


class Tuner(ABC):
    """Proposes arms and decides, round by round, what becomes of them.

    What an implementation promises:

    - It is called from one thread at a time and may block (it runs on the storage executor, never on the event loop).
    - Same seed, same prices and observations in the same order: same arms.
    - `propose` returns at most `context.slots` arms, numbered upwards from `context.next_number`; an empty list while
      arms are open means "ask again after the next observation", and with none open "there is nothing left to try",
      unless `waits_until` says that somebody outside may ask for one.
    - An arm with parents is not started before their last commits. Until it is, `propose` is asked again with the same
      `next_number`, and must answer with it again.
    - `observe` answers CONTINUE, PRUNE, FINISH or FAIL. An observation with `failed` set is answered FAIL, one with
      `last` set and a value is answered FINISH or PRUNE. Observing the same (arm, round) twice changes nothing
      after the first time: a round that was observed but not committed is trained again after a crash.
    - A tuner whose arms go on from earlier ones names in `keeps` every ended arm it may still name as a parent.
    - `state` is small and made of JSON types; `restore(state(), open arms)` on a fresh tuner of the same study goes
      on where the first one was. Arms that were proposed but are in neither the finished nor the open ones were lost
      in a crash: the tuner forgets them.
    """

    per_trial: ClassVar[bool] = True
    """Whether an arm is a whole trial: at most `budget.trials` of them, the best trained on for `final_rounds`."""

    @abstractmethod
    def propose(self, context: ProposeContext) -> list[Arm]:
        """New arms to train, best first."""

    @abstractmethod
    def observe(self, observation: Observation) -> Decision:
        """Takes in a round and says what becomes of the arm."""

    def waits_until(self, now: datetime) -> datetime | None:
        """With nothing to propose and no arm open: until when somebody outside may still ask for one.

        None, or a time that is past: there is nothing left to try.
        """
        return None

    def keeps(self) -> set[int]:
        """Arms that have ended and whose models it may still start from or deliver."""
        return set()

    def delivers(self) -> int | None:
        """The arm whose model the study ends with, as far as is known now; None: the best by its last value."""
        return None

    def concluded(self, delivered: str) -> None:
        """The study has come to its model.

        Args:
            delivered: Which that is, in a few words, for people who look into what the tuner has written.
        """
        return

    def notes(self) -> list[Note]:
        """The decisions since it was last asked; committed with the observation that led to them."""
        return []

    def state(self) -> dict[str, Any]:
        """What `restore` needs; committed together with every round."""
        return {}

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Goes on after a restart.

        Args:
            state: What `state` gave at the last commit.
            open_arms: The arms that will be trained on.
        """
        return

    def close(self) -> None:
        """Gives back what the tuner holds, such as database connections."""
        return
