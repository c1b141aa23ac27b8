"""No tuning: one configuration, or a given schedule of them, for the whole budget.

`fixed` is the row that every table of tuners needs: a sensible default trained all the way. `schedule` trains anew
what a tuner found as it went.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.legal import standard_fault
from fedstep.common.space import Space
from fedstep.common.spec import StudySpec
from fedstep.common.standard import STANDARD
from fedstep.common.validation import MistakesError, join, one_of, sentences, show
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.program import Program, ProgramTuner, Result
from fedstep.server.tuning.spending import rounds_in_all, rounds_left

_COSINE_SHARE = 0.4  # algorithm.md, settle: the last 40 % of the budget
_COSINE_END = 0.1  # to 10 % of the learning rate
_COSINE_LEGS = 12


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


class ScheduleOptions(BaseModel):
    """What a study file may say of the tuner `schedule`.

    Attributes:
        stages: In order; the first starts from the study's initial model, every other from the one before.
        average: As in `FixedOptions`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[Stage, ...] = Field(min_length=1)
    average: float = Field(default=0.0, ge=0.0, lt=1.0)


class ScheduleTuner(ProgramTuner):
    """Trains one stage after another, from scratch, as far as the budget goes."""

    def __init__(self, spec: StudySpec, options: ScheduleOptions, defaults: Mapping[str, Value]) -> None:
        """Fills up the stages.

        Args:
            spec: The study.
            options: What its file says.
            defaults: The task's own defaults.

        Raises:
            InvalidInputError: A stage names a hyper-parameter that does not exist.
        """
        super().__init__(spec)
        self._average = options.average
        known = _known(spec, defaults)
        self._stages: list[tuple[Hyperparameters, int]] = [
            (completed(spec.space, stage.hyperparameters, known, f"tuner.stages.{k}.hyperparameters"), stage.rounds)
            for k, stage in enumerate(options.stages)
        ]

    def program(self) -> Program:
        """Every stage goes on from the one before."""
        stages = _cut(self._stages, rounds_in_all(self.spec))
        return (yield from _chain(self, stages, self._average))


class FixedTuner(ProgramTuner):
    """Trains one configuration for the whole budget, with a late cosine or an averaged model if asked."""

    def __init__(self, spec: StudySpec, options: FixedOptions, defaults: Mapping[str, Value]) -> None:
        """Fills up the configuration.

        Args:
            spec: The study.
            options: What its file says.
            defaults: The task's own defaults.

        Raises:
            InvalidInputError: The options name a hyper-parameter that does not exist.
        """
        super().__init__(spec)
        self._options = options
        known = _known(spec, defaults)
        self._point = completed(spec.space, options.hyperparameters, known, "tuner.hyperparameters")
        self._lr = float(self._point.get("lr", known["lr"]))

    def program(self) -> Program:
        """One arm; under `cosine` more of them, each from the one before."""
        rounds = rounds_in_all(self.spec)
        stages: list[tuple[Hyperparameters, int]] = [(self._point, rounds)]
        if self._options.cosine:
            late = round(_COSINE_SHARE * rounds)
            stages = [(self._point, rounds - late), *self._cosine(late)]
        return (yield from _chain(self, stages, self._options.average))

    def _cosine(self, rounds: int) -> list[tuple[Hyperparameters, int]]:
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


def _known(spec: StudySpec, defaults: Mapping[str, Value]) -> dict[str, Value]:
    """Every hyper-parameter there is, with its default; one of the space that has none is in the middle."""
    middle = {name: parameter.from_unit(0.5) for name, parameter in spec.space.parameters.items()}
    standard = {name: parameter.default for name, parameter in STANDARD.items()}
    return {**middle, **standard, **defaults, **spec.hyperparameters}


def _typed(value: Value, default: Value) -> Value:
    """A whole number as a real one where the hyper-parameter is real."""
    return float(value) if isinstance(default, float) and type(value) is int else value


def _cut(stages: Sequence[tuple[Hyperparameters, int]], rounds: int) -> list[tuple[Hyperparameters, int]]:
    """The stages as far as so many rounds go."""
    within = []
    for point, wanted in stages:
        within.append((point, min(wanted, rounds)))
        rounds -= within[-1][1]
    return within


def _chain(tuner: ProgramTuner, stages: Sequence[tuple[Hyperparameters, int]], average: float) -> Program:
    """Trains the stages one after another; those of no rounds are left out. Ends with the number to deliver."""
    head: Result | None = None
    for point, rounds in stages:
        if not rounds or (head and not rounds_left(tuner.spec, tuner.spent)):
            continue
        parents = (head.arm.number,) if head else ()
        (result,) = yield [tuner.arm(point, parents=parents, rounds=rounds, average=average)]
        if result.failed:
            break
        head = result
        tuner.deliver(head.arm)
    if head is None or not average:
        return head.arm.number if head else None
    return (yield from _better_of_average(tuner, head))


def _better_of_average(tuner: ProgramTuner, head: Result) -> Program:
    """Measures the averaged model beside the last one, on the same cohort."""
    arm = tuner.arm(head.arm.hyperparameters, parents=(head.arm.number,), rounds=0, of_average=True, phase="average")
    tuner.keep(head.arm)
    (averaged,) = yield [arm]
    if averaged.failed or averaged.value is None or head.value is None:
        return head.arm.number
    better = tuner.spec.objective.better(averaged.value, head.value)
    chosen: Arm = arm if better else head.arm
    tuner.note(
        "averaging",
        f"The averaged model measures {averaged.value:.4g} and the last one {head.value:.4g}; "
        f"{'the averaged' if better else 'the last'} one is delivered.",
        averaged=averaged.value,
        last=head.value,
    )
    return chosen.number
