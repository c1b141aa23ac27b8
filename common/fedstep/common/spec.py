"""What a study is: the typed content of a study file."""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from fedstep.common.buffers import buffer_faults, with_selector
from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Value
from fedstep.common.legal import standard_fault
from fedstep.common.space import Space
from fedstep.common.standard import STANDARD
from fedstep.common.validation import MistakesError, join, show

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h)")
_LONGEST = timedelta(days=10_000)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _duration(value: object) -> object:
    """Durations read as "90s", "1.5m", "2h" or a number of seconds."""
    if isinstance(value, timedelta):
        return value
    number: Decimal | None = None
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        number = Decimal(match[1]) * _UNITS_MS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        number = Decimal(repr(value)) * 1000
    if number is None:
        raise ValueError('it must be a duration such as "30s", "5m" or "1h"')
    if abs(number) > _LONGEST / timedelta(milliseconds=1):
        raise ValueError(f"it must be at most {_LONGEST.days} days")
    # Exact in whole microseconds, so that what was written is read back.
    return timedelta(microseconds=int(number * 1000))


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError("it must not be negative")
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("it must be longer than 0")
    return value


def _duration_text(value: timedelta) -> str:
    return f"{Decimal(value // timedelta(microseconds=1)) / 1_000_000:f}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_not_negative),
    PlainSerializer(_duration_text, return_type=str, when_used="json"),
]
"""A length of time, not negative."""

PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
"""A length of time, longer than 0."""


Count = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
"""A whole number from 0, as wide as the protocol's."""

PositiveCount = Annotated[int, Field(strict=True, ge=1, lt=2**32)]
"""A whole number from 1, as wide as the protocol's."""

Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; a text is none."""


def _study_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("it may hold letters, digits, - _ and ., at most 64, and starts with a letter or a digit")
    return value


def _option_faults(value: object, field: str) -> list[FieldViolation]:
    """What is not JSON in an option: dates, and numbers that are not finite."""
    if isinstance(value, Mapping):
        return [fault for key, item in value.items() for fault in _option_faults(item, join(field, str(key)))]
    if isinstance(value, list | tuple):
        return [fault for at, item in enumerate(value) for fault in _option_faults(item, join(field, str(at)))]
    if isinstance(value, bool | int | str) or value is None or (isinstance(value, float) and math.isfinite(value)):
        return []
    kinds = "a number, a text, true, false, a list or a table"
    fix = "give a finite number" if isinstance(value, float) else f"an option is {kinds}"
    return [FieldViolation(field, f"is {show(value)}: {fix}.")]


def _fixed(raw: object) -> dict[str, Value]:
    """Fixed hyper-parameters; whole numbers become reals where the standard one is real."""
    if not isinstance(raw, Mapping):
        raise ValueError("it must be a table of fixed values")
    values: dict[str, Value] = {}
    faults = []
    for name, value in raw.items():
        if not isinstance(value, bool | int | float | str):
            what = "to tune it, write it into [space]" if isinstance(value, Mapping | list) else "give it one"
            faults.append(
                FieldViolation(name, f"is {show(value)}: a fixed value is a number, a text, true or false; {what}.")
            )
            continue
        fault = _value_fault(name, value)
        if fault:
            faults.append(FieldViolation(name, fault))
            continue
        real = name in STANDARD and isinstance(STANDARD[name].default, float)
        values[name] = float(value) if real else value
    if faults:
        raise MistakesError(faults)
    return values


def _value_fault(name: str, value: Value) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {show(value)}: it must be a finite number."
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return f"is {show(value)}: it must fit into 64 bits."
    return standard_fault(name, value) if name in STANDARD else None


OVER_SELECTION: Mapping[str, float] = MappingProxyType({"deadline": 1.3, "oort": 1.3})
"""How many times the wanted clients a selector asks where the study does not say; once, where it is not named."""


class Part(BaseModel):
    """The base of every table of a study file: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(BaseModel):
    """A built-in part by name; every other key of its table is an option, checked by the part itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check_options(self) -> "Plugin":
        faults = _option_faults(self.options, "")
        if faults:
            raise MistakesError(faults)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The options given."""
        return dict(self.model_extra or {})


class Objective(Part):
    """What is better.

    Attributes:
        metric: A metric of the evaluation.
        direction: Whether less or more of it is better; less, where the metric is a loss and nothing is said.
    """

    metric: str = Field(default="loss", min_length=1)
    direction: Literal["minimize", "maximize"] = "minimize"

    @model_validator(mode="after")
    def _direction_is_said(self) -> Self:
        if "direction" not in self.model_fields_set and not self.metric.endswith("loss"):
            text = f'is missing: write "maximize" if more {self.metric} is better, else "minimize".'
            raise MistakesError([FieldViolation("direction", text)])
        return self

    def better(self, a: float, b: float) -> bool:
        """Whether a is better than b."""
        return a < b if self.direction == "minimize" else a > b


class RoundPolicy(Part):
    """How one round is run; `docs/guide.md` says what each field does."""

    cohort_size: Count = 0
    over_selection: Real | None = Field(default=None, ge=1.0, le=10.0)
    quorum: Real = Field(default=0.5, gt=0.0, le=1.0)
    deadline: PositiveDuration = timedelta(seconds=60)
    min_clients: PositiveCount = 1
    wait_for_clients: Duration = timedelta(minutes=5)
    late_updates: Literal["discount", "drop"] = "discount"
    mode: Literal["synchronous", "buffered"] = "synchronous"
    buffer_size: Count = 0
    max_staleness: PositiveCount = 20

    @property
    def buffered(self) -> bool:
        """Whether rounds are buffers (Nguyen et al. 2022, FedBuff)."""
        return self.mode == "buffered"


class EvaluationPolicy(Part):
    """Who evaluates each round's model and for how long they may take."""

    cohort_size: Count = 20
    deadline: PositiveDuration = timedelta(seconds=60)
    held_out: bool = Field(default=True, strict=True)


class Budget(Part):
    """What may be spent.

    Attributes:
        trials: Trials in all.
        rounds_per_trial: Rounds of an unpruned trial.
        final_rounds: Rounds that the best trial's model is trained on for, at the end; the best one's is delivered.
        time: No round is started after this; None for no limit.
        rounds: No round is started after so many of the whole study; two at the same time count twice. 0: no limit.
        client_rounds: The same in trainings asked of clients.
        payload_bytes: The same in bytes of models and updates.
    """

    trials: PositiveCount = 10
    rounds_per_trial: PositiveCount = 20
    final_rounds: Count = 0
    time: PositiveDuration | None = None
    rounds: Count = 0
    client_rounds: Count = 0
    payload_bytes: int = Field(default=0, strict=True, ge=0, lt=2**63)

    @property
    def rounds_of_trials(self) -> int:
        """Those of all trials, were none pruned."""
        return self.trials * self.rounds_per_trial


class GuardPolicy(Part):
    """When a client is told to abandon, and how large an update may be (see `GuardPolicy` in study.proto)."""

    window: PositiveCount = 8
    factor: Real = Field(default=3.0, gt=1.0)
    margin: Real = Field(default=3.0, ge=0.0)
    max_update_ratio: Real = Field(default=100.0, gt=0.0)


class StudySpec(Part):
    """A study, whole."""

    name: Annotated[str, AfterValidator(_study_name)]
    task: str = Field(min_length=1)
    seed: int = Field(default=0, strict=True, ge=0, lt=2**63)
    space: Space
    hyperparameters: Annotated[dict[str, Value], BeforeValidator(_fixed)] = Field(default_factory=dict)
    objective: Objective = Objective()
    tuner: Plugin = Plugin(name="stepwise")
    selector: Plugin = Plugin(name="deadline")
    aggregator: Plugin = Plugin(name="fedavg")
    round: RoundPolicy = RoundPolicy()
    evaluation: EvaluationPolicy = EvaluationPolicy()
    budget: Budget = Budget()
    guard: GuardPolicy = GuardPolicy()
    parallel_trials: int = Field(default=1, strict=True, ge=1, le=64)

    @property
    def over_selection(self) -> float:
        """How many times the clients wanted a round asks: as the round's table says, else as its selector does."""
        return self.round.over_selection or OVER_SELECTION.get(self.selector.name, 1.0)

    @model_validator(mode="before")
    @classmethod
    def _selector_of_buffers(cls, content: Any) -> Any:
        return with_selector(content)

    @model_validator(mode="after")
    def _check_buffers(self) -> "StudySpec":
        faults = buffer_faults(self)
        if faults:
            raise MistakesError(faults)
        return self

    @model_validator(mode="after")
    def _check_names(self) -> "StudySpec":
        both = [name for name in self.hyperparameters if name in self.space]
        if both:
            said = "is also in [space]: a hyper-parameter is either fixed or tuned; drop one of the two."
            raise MistakesError([FieldViolation(f"hyperparameters.{name}", said) for name in both])
        return self
