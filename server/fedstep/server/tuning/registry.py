"""Tuners by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS
from fedstep.common.validation import MistakesError, join, one_of, sentences, show, violations_of
from fedstep.server.tuning.base import Tuner
from fedstep.server.tuning.fedex import FedexOptions, FedexTuner
from fedstep.server.tuning.fixed import FixedOptions, FixedTuner, ScheduleOptions, ScheduleTuner
from fedstep.server.tuning.grid_search import GridOptions, GridTuner
from fedstep.server.tuning.optuna_study import OptunaOptions, OptunaTuner
from fedstep.server.tuning.outside import OutsideOptions, OutsideTuner
from fedstep.server.tuning.population import PopulationOptions, PopulationTuner
from fedstep.server.tuning.random_search import RandomOptions, RandomTuner
from fedstep.server.tuning.ray_names import PAUSING, scheduler_of
from fedstep.server.tuning.ray_options import RayOptions
from fedstep.server.tuning.ray_tuner import RayStretchesTuner, RayTuner
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.stepwise import StepwiseTuner
from fedstep.server.tuning.stepwise_options import StepwiseOptions

_Options = TypeVar("_Options", bound=BaseModel)


@dataclass(frozen=True)
class _Entry:
    """How one tuner is checked and made.

    Attributes:
        check: Raises InvalidInputError when its options or the space do not suit it; touches no database.
        create: Makes it, after `check`, from the study, the database's URL and every hyper-parameter's default.
        suits: Raises InvalidInputError when its options do not suit every hyper-parameter's default; touches no
            database.
    """

    check: Callable[[StudySpec], None]
    create: Callable[[StudySpec, str, Mapping[str, Value]], Tuner]
    suits: Callable[[StudySpec, Mapping[str, Value]], None] | None = None


def validate_tuner(spec: StudySpec, defaults: Mapping[str, Value] | None = None) -> None:
    """Checks the study's tuner and its options, without touching the database.

    Args:
        spec: The study.
        defaults: The task's defaults by name; None where the task is not known, nor which names are hyper-parameters.

    Raises:
        InvalidInputError: There is no such tuner, or its options are wrong; violations name `tuner.…` or `space.…`.
    """
    entry = _entry(spec)
    entry.check(spec)
    if defaults is not None and entry.suits is not None:
        entry.suits(spec, {**DEFAULTS, **defaults})


def create_tuner(spec: StudySpec, storage_url: str, defaults: Mapping[str, Value] | None = None) -> Tuner:
    """The study's tuner.

    Args:
        spec: The study.
        storage_url: SQLAlchemy's URL of the coordinator's database, for tuners that keep something there.
        defaults: The task's defaults by name, for tuners that start from them; fedstep's own stand in for others.

    Raises:
        InvalidInputError: As in `validate_tuner`; nothing has been stored then.
        StorageError: The database cannot be used.
    """
    entry = _entry(spec)
    entry.check(spec)
    return entry.create(spec, storage_url, {**DEFAULTS, **(defaults or {})})


def _tuners() -> dict[str, _Entry]:
    return {
        "random": _Entry(
            check=lambda spec: _check_options(spec, RandomOptions),
            create=lambda spec, url, defaults: RandomTuner(spec),
        ),
        "grid": _Entry(
            check=_check_grid,
            create=lambda spec, url, defaults: GridTuner(spec, _options(spec, GridOptions)),
        ),
        "optuna": _Entry(
            check=_check_optuna,
            create=lambda spec, url, defaults: OptunaTuner(spec, _options(spec, OptunaOptions), url, defaults),
            suits=_suits_enqueued,
        ),
        "stepwise": _Entry(
            check=_check_stepwise,
            create=lambda spec, url, defaults: StepwiseTuner(spec, _options(spec, StepwiseOptions), url, defaults),
            suits=_suits_start,
        ),
        "fedex": _Entry(
            check=lambda spec: _check_made(FedexTuner(spec, _options(spec, FedexOptions))),
            create=lambda spec, url, defaults: FedexTuner(spec, _options(spec, FedexOptions)),
        ),
        "population": _Entry(
            check=lambda spec: _check_made(PopulationTuner(spec, _options(spec, PopulationOptions))),
            create=lambda spec, url, defaults: PopulationTuner(spec, _options(spec, PopulationOptions)),
        ),
        "ray": _Entry(
            check=_check_ray,
            create=lambda spec, url, defaults: _ray_tuner(spec),
        ),
        "fixed": _Entry(
            check=lambda spec: _check_options(spec, FixedOptions),
            create=lambda spec, url, defaults: FixedTuner(spec, _options(spec, FixedOptions), defaults),
            suits=lambda spec, defaults: _check_made(FixedTuner(spec, _options(spec, FixedOptions), defaults)),
        ),
        "schedule": _Entry(
            check=lambda spec: _check_options(spec, ScheduleOptions),
            create=lambda spec, url, defaults: ScheduleTuner(spec, _options(spec, ScheduleOptions), defaults),
            suits=lambda spec, defaults: _check_made(ScheduleTuner(spec, _options(spec, ScheduleOptions), defaults)),
        ),
        "outside": _Entry(
            check=lambda spec: _options(spec, OutsideOptions).check(spec),
            create=lambda spec, url, defaults: OutsideTuner(spec, _options(spec, OutsideOptions)),
        ),
    }


def _entry(spec: StudySpec) -> _Entry:
    tuners = _tuners()
    if spec.tuner.name not in tuners:
        said = f"is {show(spec.tuner.name)}: {one_of(spec.tuner.name, tuners)}"
        raise _refusal([FieldViolation("tuner.name", said)])
    return tuners[spec.tuner.name]


def _check_options(spec: StudySpec, model: type[BaseModel]) -> None:
    _options(spec, model)


def _check_grid(spec: StudySpec) -> None:
    GridTuner(spec, _options(spec, GridOptions))


def _check_optuna(spec: StudySpec) -> None:
    try:
        _options(spec, OptunaOptions).check(spec)
    except MistakesError as error:
        raise _refusal(list(error.violations)) from None


def _check_stepwise(spec: StudySpec) -> None:
    try:
        _options(spec, StepwiseOptions).check(spec)
    except MistakesError as error:
        raise _refusal(list(error.violations)) from None


def _suits_enqueued(spec: StudySpec, defaults: Mapping[str, Value]) -> None:
    points = _options(spec, OptunaOptions).enqueue
    _check_points(spec, {f"tuner.enqueue.{number}": point for number, point in enumerate(points)}, defaults)


def _suits_start(spec: StudySpec, defaults: Mapping[str, Value]) -> None:
    _check_points(spec, {"tuner.start": _options(spec, StepwiseOptions).start}, defaults)


def _check_points(spec: StudySpec, points: Mapping[str, Mapping[str, Value]], defaults: Mapping[str, Value]) -> None:
    """Whether all that is given exists beside the defaults of what is not given."""
    scales = Scales(spec, defaults)
    faults = [
        FieldViolation(join(field, name), spec.space.nowhere(name))
        for field, point in points.items()
        for name in sorted(point.keys() - scales.default_point(point).keys())
    ]
    if faults:
        raise _refusal(faults)


def _check_ray(spec: StudySpec) -> None:
    try:
        _options(spec, RayOptions).world(spec)
    except MistakesError as error:
        raise _refusal(list(error.violations)) from None


def _ray_tuner(spec: StudySpec) -> Tuner:
    made = RayStretchesTuner if scheduler_of(spec) in PAUSING else RayTuner
    return made(spec, _options(spec, RayOptions))


def _check_made(tuner: Tuner) -> None:
    """It could be made: what is wrong with its options would have been said."""
    tuner.close()


def _options(spec: StudySpec, model: type[_Options]) -> _Options:
    try:
        return model.model_validate(spec.tuner.options)
    except ValidationError as error:
        faults = [FieldViolation(join("tuner", v.field), v.description) for v in violations_of(error, model)]
        raise _refusal(faults) from None


def _refusal(faults: list[FieldViolation]) -> InvalidInputError:
    return InvalidInputError(sentences(faults), faults)
