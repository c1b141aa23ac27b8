"""What a study has come to, as plain Python values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format

from fedstep.common import hyperparameters as hp
from fedstep.common.hyperparameters import Value
from fedstep.v1 import study_pb2 as pb


@dataclass(frozen=True)
class Trial:
    """One point of the space and the training with it.

    Attributes:
        number: From 0 in its study.
        state: "running", "completed", "pruned" or "failed".
        hyperparameters: By name.
        value: The objective after the last round; None before the first.
        values: The objective after each round; nan where a round gave none.
        metrics: Of the last evaluation.
        rounds: Rounds committed.
        parents: The trials whose models it started from.
        phase: What it is for, such as "screen"; "" for a plain trial.
        message: Why it failed; "" otherwise.
    """

    number: int
    state: str
    hyperparameters: Mapping[str, Value]
    value: float | None
    values: Sequence[float]
    metrics: Mapping[str, float]
    rounds: int
    parents: Sequence[int]
    phase: str
    message: str


@dataclass(frozen=True)
class Event:
    """Something that happened in a study.

    Attributes:
        number: Grows; to be given as `after` by who goes on watching.
        time: When it was committed.
        kind: Such as "round_committed"; docs/protocol.md lists them.
        text: One sentence, for people.
        details: For programs.
    """

    number: int
    time: datetime
    kind: str
    text: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """What a study ended with.

    Attributes:
        model_sha256: The model's name, in hexadecimal.
        metrics: Of the model.
        held_out: Whether they are from the task's held-out set.
    """

    model_sha256: str
    metrics: Mapping[str, float]
    held_out: bool


def word(state: int, names: Any) -> str:
    """A state in a word, such as "running".

    Args:
        state: A value of the enum.
        names: The enum.
    """
    name: str = names.Name(state)
    return name.split("STATE_", 1)[-1].replace("_", " ").lower()


def trial(message: pb.Trial) -> Trial:
    """A trial."""
    return Trial(
        number=message.number,
        state=word(message.state, pb.TrialState),
        hyperparameters=dict(sorted(hp.map_from_proto(message.hyperparameters).items())),
        value=message.value if message.HasField("value") else None,
        values=tuple(message.values),
        metrics=dict(message.metrics),
        rounds=message.rounds,
        parents=tuple(message.parents),
        phase=message.phase,
        message=message.message,
    )


def event(message: pb.StudyEvent) -> Event:
    """An event; whole numbers among its details are whole again."""
    details = whole(json_format.MessageToDict(message.details))
    return Event(message.number, message.time.ToDatetime(tzinfo=UTC), message.kind, message.text, details)


def result(message: pb.StudyResult) -> Result:
    """What a study ended with."""
    return Result(message.model_sha256.hex(), dict(message.metrics), message.held_out)


def whole(value: Any) -> Any:
    """Details with whole numbers whole again: a Struct knows floats only."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value
