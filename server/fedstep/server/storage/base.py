"""The contract of a store: what a coordinator must find again after it was killed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from operator import add
from typing import Any, TypeVar

from fedstep.common.amounts import fieldwise
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.storage.costs import ArmCost, Overhead

_Record = TypeVar("_Record")


class StudyState(StrEnum):
    """Where a study stands. RUNNING, STOPPING and INTERRUPTED go on after a restart, PAUSING and PAUSED stand still
    until they are resumed; the others have ended."""

    RUNNING = "running"
    INTERRUPTED = "interrupted"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (StudyState.STOPPED, StudyState.COMPLETED, StudyState.FAILED)


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class StudyResult:
    """What a study ends with.

    Attributes:
        model_sha256: The final model's digest, 32 bytes.
        metrics: Of the final model.
        held_out: Whether `metrics` are from the held-out set.
        model_path: The model's file.
        picture_path: The picture of the run; "" when none was drawn.
        report_path: The report, one HTML file; "" when none was written.
    """

    model_sha256: bytes
    metrics: dict[str, float]
    held_out: bool
    model_path: str
    picture_path: str = ""
    report_path: str = ""


@dataclass(frozen=True)
class Spent:
    """What counts against a budget, beside time.

    Attributes:
        rounds: Rounds, those that failed included.
        client_rounds: Trainings that clients were asked for.
        payload_bytes: Bytes of models and updates, for training and for measuring.
    """

    rounds: int = 0
    client_rounds: int = 0
    payload_bytes: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return fieldwise(add, self, other)


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands. `seconds_spent` is the time its rounds have taken, `spent` what else they have cost."""

    spec: StudySpec
    state: StudyState
    created_at: datetime
    updated_at: datetime
    message: str = ""
    tuner_state: dict[str, Any] = field(default_factory=dict)
    seconds_spent: float = 0.0
    spent: Spent = field(default_factory=Spent)
    result: StudyResult | None = None


BEST_FINAL_ROUND = "best_final_round"
"""In the details of a trial."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it stands; also what its run is resumed from.

    Attributes:
        number: From 0.
        state: Where it stands.
        hyperparameters: The point of the space it trains with.
        values: The objective after each committed round; its length is the number of rounds. None where a round
            gave no value.
        metrics: Of the last round.
        model_sha256: The model after the last committed round; b"" before the first.
        optimizer_sha256: The server optimizer's state; b"" when it has none.
        message: Why it failed, in one sentence.
        first_round: Rounds that were behind its model when it began: those of the trials it goes on from.
        details: JSON types. The attributes of its `tuning.base.Arm` that are not as in a plain trial; "value", the
            objective of one that was only measured; "delivered" in the one whose model the study ended with;
            `BEST_FINAL_ROUND`: of its final rounds the best one's rounds, value, metrics and model (its digest in hex).
    """

    number: int
    state: TrialState
    hyperparameters: Hyperparameters
    values: tuple[float | None, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    model_sha256: bytes = b""
    optimizer_sha256: bytes = b""
    message: str = ""
    first_round: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Rounds committed."""
        return len(self.values)

    @property
    def rounds_behind(self) -> int:
        """Rounds behind its model, those of the trials it goes on from included."""
        return self.first_round + (0 if self.details.get("discard") else self.rounds)

    @property
    def rounds_delivered(self) -> int:
        """Rounds behind the model that the study delivers of it, if it does."""
        best = self.details.get(BEST_FINAL_ROUND)
        return best["rounds"] if best else self.rounds_behind

    @property
    def own_rounds_delivered(self) -> int:
        """Those of its own rounds among them."""
        return self.rounds_delivered - self.first_round

    @property
    def value(self) -> float | None:
        """The objective after the last round, or when it was measured."""
        return self.values[-1] if self.values else self.details.get("value")

    @property
    def value_delivered(self) -> float | None:
        """The objective of the model that the study delivers of it, if it does."""
        own = self.own_rounds_delivered
        return self.values[own - 1] if 0 < own < self.rounds else self.value

    @property
    def metrics_delivered(self) -> dict[str, float]:
        """The same model's metrics."""
        best = self.details.get(BEST_FINAL_ROUND)
        return best.get("metrics", self.metrics) if best else self.metrics


@dataclass(frozen=True)
class Steps:
    """The local steps of one assignment, from number 0, in columns of equal length."""

    loss: tuple[float, ...] | Sequence[float] = ()
    samples: tuple[int, ...] | Sequence[int] = ()
    step_ms: tuple[float, ...] | Sequence[float] = ()


@dataclass(frozen=True)
class AssignmentRecord:
    """What one client was asked to do in a round and how it went.

    Attributes:
        assignment_id: Unique.
        trial: The trial's number.
        round: The round inside the trial.
        attempt: The round's attempt, from 1.
        client: The client's name.
        work: "train" or "evaluate".
        status: "accepted", "refused", "abandoned", "failed", "late", "lost", or "goes_on" where
            the end of the round did not stop the client.
        message: One sentence when it is not "accepted".
        samples: Samples it counted for.
        elapsed_s: From dispatch to its end, by the coordinator's clock.
        payload_bytes: Bytes of its update.
        model_bytes: Bytes of the model that it was sent.
        metrics: Of an evaluation; of a training its "loss".
        steps: What was reported of its local steps.
    """

    assignment_id: str
    trial: int
    round: int
    attempt: int
    client: str
    work: str
    status: str
    message: str = ""
    samples: int = 0
    elapsed_s: float = 0.0
    payload_bytes: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    steps: Steps | None = None
    model_bytes: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """One committed round.

    Attributes:
        trial: The trial's number.
        round: From 0 inside the trial.
        attempts: How often it was tried; 1 when it went well at once.
        model_sha256: The model it made.
        value: The objective; None when nobody could evaluate.
        metrics: Weighted means over the evaluation cohort.
        train_loss: Weighted mean of the clients' training losses.
        cohort: Who was asked to train.
        updates: How many updates were taken.
        evaluators: Who evaluated.
        seconds: Wall-clock time of the whole round, without waits for clients to be there.
        ended_at: When it was committed.
        payload_bytes: Bytes of the models its clients were to receive and of the updates taken, in all attempts.
    """

    trial: int
    round: int
    attempts: int
    model_sha256: bytes
    value: float | None
    metrics: dict[str, float]
    train_loss: float
    cohort: tuple[str, ...]
    updates: int
    evaluators: tuple[str, ...]
    seconds: float
    ended_at: datetime
    payload_bytes: int = 0


@dataclass(frozen=True)
class NewEvent:
    """Something that happened, before it has a number.

    Attributes:
        kind: Such as "round_committed".
        text: One sentence for people.
        details: JSON types, for programs.
        happened_at: None: as it is committed.
    """

    kind: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)
    happened_at: datetime | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Event(NewEvent):
    """An event in its place: `number` grows with every commit, in one study and over all.

    What happened in a round is committed with it: its `time` may be before that of an event with a smaller number.
    """

    number: int = 0
    time: datetime = datetime.min


@dataclass(frozen=True)
class ClientRecord:
    """What is kept of a client while it is away."""

    name: str
    task: str
    device: str
    train_samples: int
    validation_samples: int
    last_seen_at: datetime
    updates_accepted: int = 0
    faults: int = 0


@dataclass(frozen=True)
class PaceRecord:
    """How fast a client was found to be; `pace` is made of JSON types, see `selection.pace.Paces.kept`."""

    client: str
    pace: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """Everything that happens to a study at one instant, written in one transaction or not at all.

    Attributes:
        trials: Trials to add or to replace, by number.
        round: The round that was finished.
        assignments: Of that round, all attempts.
        events: Appended in order.
        tuner_state: Replaces the one there; None leaves it.
        state: Replaces the one there; None leaves it.
        message: Goes with `state`.
        result: Replaces the one there; None leaves it.
        seconds: Added to the time spent.
        spent: Added to what was spent.
        cost: Added to what its trial has cost.
        overhead: Added to what the coordinator has spent.
    """

    trials: Sequence[TrialRecord] = ()
    round: RoundRecord | None = None
    assignments: Sequence[AssignmentRecord] = ()
    events: Sequence[NewEvent] = ()
    tuner_state: dict[str, Any] | None = None
    state: StudyState | None = None
    message: str = ""
    result: StudyResult | None = None
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    cost: ArmCost | None = None
    overhead: Overhead = field(default_factory=Overhead)


def all_studies(store: "Store") -> list[StudyRecord]:
    """Every study, by name, read a page at a time."""
    return _all_pages(lambda last: store.studies(last.spec.name) if last else store.studies())


def all_trials(store: "Store", study: str) -> list[TrialRecord]:
    """Every trial of a study, by number, read a page at a time."""
    return _all_pages(lambda last: store.trials(study, last.number) if last else store.trials(study))


def _all_pages(page_after: Callable[[_Record | None], list[_Record]]) -> list[_Record]:
    """What lies on all pages, each asked for by the last record of the one before."""
    records: list[_Record] = []
    while page := page_after(records[-1] if records else None):
        records += page
    return records


class Store(ABC):
    """Keeps studies, trials, rounds, assignments, steps, events, clients and their paces.

    What an implementation promises: every call is one transaction; a call that raised has changed nothing; what was
    committed is found again by the next process; lists are in the order of their numbers; times are aware and in UTC.
    It is called from one thread at a time and may block. A second coordinator on the same database is refused when it
    opens it, and a coordinator that was killed, however, does not keep the next one out.

    Every call that names a study raises NotFoundError, with the names that exist, when there is none of that name.
    """

    @abstractmethod
    def identity(self) -> str:
        """A name that this database was given once and keeps, wherever it is moved to."""

    @abstractmethod
    def create_study(self, spec: StudySpec) -> StudyRecord:
        """A new study, RUNNING.

        Raises:
            AlreadyExistsError: There is one of that name.
        """

    @abstractmethod
    def study(self, name: str) -> StudyRecord:
        """The study of that name."""

    @abstractmethod
    def studies(self, after: str = "", limit: int = 100) -> list[StudyRecord]:
        """Studies by name, from the first name greater than `after` on."""

    @abstractmethod
    def commit(self, study: str, change: Change) -> list[Event]:
        """Writes the change, whole or not at all, and gives its events their numbers.

        Raises:
            AlreadyExistsError: The round was committed before.
        """

    @abstractmethod
    def costs(self, study: str) -> list[ArmCost]:
        """What each trial has cost that has cost anything, by number."""

    @abstractmethod
    def overhead(self, study: str) -> Overhead:
        """What the coordinator itself has spent on a study, in all its lives."""

    @abstractmethod
    def trials(self, study: str, after: int = -1, limit: int = 1000) -> list[TrialRecord]:
        """Trials by number, from the first number greater than `after` on."""

    @abstractmethod
    def rounds(self, study: str, trial: int | None = None) -> list[RoundRecord]:
        """Committed rounds, by trial and round."""

    @abstractmethod
    def assignments(
        self,
        study: str,
        trial: int | None = None,
        round: int | None = None,
        client: str = "",
        with_steps: bool = True,
    ) -> Iterator[AssignmentRecord]:
        """Assignments with their steps, or without, by trial, round and client, read a page at a time."""

    @abstractmethod
    def events(self, study: str, after: int = 0, limit: int = 1000, kind: str = "") -> list[Event]:
        """Events by number, from the first number greater than `after` on; those of one kind, where it is given."""

    @abstractmethod
    def save_clients(self, clients: Sequence[ClientRecord]) -> None:
        """Adds or replaces what is kept of these clients."""

    @abstractmethod
    def clients(self) -> list[ClientRecord]:
        """Every client ever seen, by name."""

    @abstractmethod
    def save_paces(self, paces: Sequence[PaceRecord]) -> None:
        """Adds or replaces what is known of these clients' paces."""

    @abstractmethod
    def paces(self) -> list[PaceRecord]:
        """Every pace that is known, by the client's name."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the database; the next coordinator may open it."""
