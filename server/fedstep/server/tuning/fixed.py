"""No tuning: one configuration, or a given schedule of them, for the whole budget.

`fixed` is the row that every table of tuners needs: a sensible default trained all the way. `schedule` trains anew
what a tuner found as it went.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.legal import standard_fault
from fedstep.common.space import Space
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS, STANDARD
from fedstep.common.validation import MistakesError, join, one_of, sentences, show
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.program import Program, ProgramTuner, Result
from fedstep.server.tuning.spending import rounds_in_all, rounds_left

_COSINE_SHARE = 0.4  # algorithm.md, settle: the last 40 % of the budget
_COSINE_END = 0.1  # to 10 % of the learning rate
_COSINE_LEGS = 12

Leg = tuple[Hyperparameters, int]
"""What to train with, and for how many rounds."""


def _values(raw: object) -> dict[str, Value]:
    """Hyper-parameters as a file gives them: each a plain value, legal where it is a standard one."""
    if not isinstance(raw, Mapping):
        raise ValueError("it must be a table of values")
    values: dict[str, Value] = {}
    faults = []
    for name, value in raw.items():
        fault = _fault(str(name), value)
        if fault:
            faults.append(FieldViolation(str(name), fault))
        else:
            values[str(name)] = value
    if faults:
        raise MistakesError(faults)
    return values


def _fault(name: str, value: object) -> str | None:
    if not isinstance(value, bool | int | float | str):
        return f"is {show(value)}: it must be a number, a text, true or false."
    return standard_fault(name, value) if name in STANDARD else None


Values = Annotated[dict[str, Value], BeforeValidator(_values)]
"""Hyper-parameters by name."""


class FixedOptions(BaseModel):
    """What a study file may say of the tuner `fixed`.

    Attributes:
        hyperparameters: The values to train with; the study's and the task's defaults for those not named.
        cosine: The learning rate falls over the last 40 % of the budget, along a cosine to 10 % of itself.
        average: Keeps an exponential average of the model, of this decay a round, and delivers it where it measures
            better than the last model; 0 keeps none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hyperparameters: Values = Field(default_factory=dict)
    cosine: bool = Field(default=False, strict=True)
    average: float = Field(default=0.0, ge=0.0, lt=1.0)


class Stage(BaseModel):
    """A part of a schedule.

    Attributes:
        hyperparameters: The values to train with; defaults for those not named.
        rounds: For so long.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hyperparameters: Values = Field(default_factory=dict)
    rounds: int = Field(strict=True, ge=1)


def _some(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Asked once the stages are legal: pydantic's own length counts only those, and complains twice."""
    if not stages:
        raise ValueError("add a stage, such as { rounds = 20 }")
    return stages


class ScheduleOptions(BaseModel):
    """What a study file may say of the tuner `schedule`.

    Attributes:
        stages: In order; the first starts from the study's initial model, every other from the one before.
        average: As in `FixedOptions`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: Annotated[tuple[Stage, ...], AfterValidator(_some)]
    average: float = Field(default=0.0, ge=0.0, lt=1.0)


class _StageTuner(ProgramTuner):
    """Trains one stage after another, the first from scratch, as far as the budget goes.

    Args:
        spec: The study.
        defaults: The task's own defaults.
        average: Decay of the averaged model a round; 0 keeps none.
    """

    def __init__(self, spec: StudySpec, defaults: Mapping[str, Value], average: float) -> None:
        super().__init__(spec)
        self._average = average
        middle = {name: parameter.from_unit(0.5) for name, parameter in spec.space.parameters.items()}
        # Every hyper-parameter there is, with its default; one of the space that has none is in the middle.
        self.known: dict[str, Value] = {**middle, **DEFAULTS, **defaults, **spec.hyperparameters}

    @abstractmethod
    def stages(self) -> Sequence[Leg]:
        """What to train with, and for how many rounds; those of no rounds are left out."""

    def program(self) -> Program:
        """Every stage goes on from the one before. Ends with the number to deliver."""
        head: Result | None = None
        for point, rounds in self.stages():
            if not rounds or (head and not rounds_left(self.spec, self.spent)):
                continue
            parents = (head.arm.number,) if head else ()
            (result,) = yield [self.arm(point, parents=parents, rounds=rounds, average=self._average)]
            if result.failed:
                break
            head = result
            self.deliver(head.arm)
        if head is None or not self._average:
            return head.arm.number if head else None
        return (yield from self._better_of_average(head))

    def _better_of_average(self, head: Result) -> Program:
        """Measures the averaged model beside the last one, on the same cohort."""
        arm = self.arm(head.arm.hyperparameters, parents=(head.arm.number,), rounds=0, of_average=True, phase="average")
        self.keep(head.arm)
        (averaged,) = yield [arm]
        if averaged.failed or averaged.value is None or head.value is None:
            return head.arm.number
        better = self.spec.objective.better(averaged.value, head.value)
        chosen: Arm = arm if better else head.arm
        self.note(
            "averaging",
            f"The averaged model measures {averaged.value:.4g} and the last one {head.value:.4g}; "
            f"{'the averaged' if better else 'the last'} one is delivered.",
            averaged=averaged.value,
            last=head.value,
        )
        return chosen.number


class ScheduleTuner(_StageTuner):
    """Trains the stages of a schedule.

    Args:
        spec: The study.
        options: What its file says.
        defaults: The task's own defaults.

    Raises:
        InvalidInputError: A stage names a hyper-parameter that does not exist.
    """

    def __init__(self, spec: StudySpec, options: ScheduleOptions, defaults: Mapping[str, Value]) -> None:
        super().__init__(spec, defaults, options.average)
        self._stages = [
            (
                completed(spec.space, stage.hyperparameters, self.known, f"tuner.stages.{k}.hyperparameters"),
                stage.rounds,
            )
            for k, stage in enumerate(options.stages)
        ]

    def stages(self) -> Sequence[Leg]:
        """Those of the schedule, as far as the budget's rounds go."""
        left, within = rounds_in_all(self.spec), []
        for point, wanted in self._stages:
            within.append((point, min(wanted, left)))
            left -= within[-1][1]
        return within


class FixedTuner(_StageTuner):
    """Trains one configuration for the whole budget, with a late cosine or an averaged model if asked.

    Args:
        spec: The study.
        options: What its file says.
        defaults: The task's own defaults.

    Raises:
        InvalidInputError: The options name a hyper-parameter that does not exist.
    """

    def __init__(self, spec: StudySpec, options: FixedOptions, defaults: Mapping[str, Value]) -> None:
        super().__init__(spec, defaults, options.average)
        self._with_cosine = options.cosine
        self._point = completed(spec.space, options.hyperparameters, self.known, "tuner.hyperparameters")
        self._lr = float(self._point.get("lr", self.known["lr"]))

    def stages(self) -> Sequence[Leg]:
        """One; under `cosine` several, each of a lower learning rate."""
        rounds = rounds_in_all(self.spec)
        if not self._with_cosine:
            return [(self._point, rounds)]
        late = round(_COSINE_SHARE * rounds)
        return [(self._point, rounds - late), *self._cosine(late)]

    def _cosine(self, rounds: int) -> list[Leg]:
        """Legs of nearly equal length; the last one has the lowest learning rate."""
        legs = min(_COSINE_LEGS, rounds)
        ends = [round(rounds * (k + 1) / legs) for k in range(legs)]
        starts = [0, *ends[:-1]] if legs else []
        return [
            ({**self._point, "lr": cosine(self._lr, (k + 1) / legs)}, end - start)
            for k, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]


def cosine(lr: float, progress: float) -> float:
    """The learning rate along the late cosine: itself at progress 0, 10 % of itself at 1."""
    return lr * (_COSINE_END + (1 - _COSINE_END) * 0.5 * (1 + math.cos(math.pi * progress)))


def completed(space: Space, given: Mapping[str, Value], known: Mapping[str, Value], field: str) -> dict[str, Value]:
    """A point: the values given, and the defaults of the space's other parameters that exist beside them.

    Values may lie outside the space: a default has not asked it, and a decayed learning rate may have left it.

    Args:
        space: The space.
        given: Values by name.
        known: Every hyper-parameter there is, with its default.
        field: Where the values stand, for errors.

    Raises:
        InvalidInputError: A name is not a hyper-parameter.
    """
    faults = [
        FieldViolation(join(field, name), f"is no hyper-parameter: {one_of(name, known)}")
        for name in given
        if name not in known
    ]
    if faults:
        raise InvalidInputError(sentences(faults), faults)
    values = {name: _typed(value, known[name]) for name, value in given.items()}
    point: dict[str, Value] = {}
    for name, _ in space.active(point):
        point[name] = values.get(name, known[name])
    # Names outside the space come along: they stand over the study's fixed values.
    return {**point, **{name: value for name, value in values.items() if name not in space}}


def _typed(value: Value, default: Value) -> Value:
    """A whole number as a real one where the hyper-parameter is real."""
    return float(value) if isinstance(default, float) and type(value) is int else value
