"""Tuners by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError, join, one_of, sentences, show, violations_of
from fedstep.server.tuning.base import Tuner
from fedstep.server.tuning.grid_search import GridOptions, GridTuner
from fedstep.server.tuning.optuna_study import OptunaOptions, OptunaTuner
from fedstep.server.tuning.random_search import RandomOptions, RandomTuner

_Options = TypeVar("_Options", bound=BaseModel)


@dataclass(frozen=True)
class _Entry:
    """How one tuner is checked and made.

    Attributes:
        check: Raises InvalidInputError when its options or the space do not suit it; touches no database.
        create: Makes it, after `check`.
    """

    check: Callable[[StudySpec], None]
    create: Callable[[StudySpec, str], Tuner]


def validate_tuner(spec: StudySpec) -> None:
    """Checks the study's tuner and its options, without touching the database.

    Raises:
        InvalidInputError: There is no such tuner, or its options are wrong; violations name `tuner.…` or `space.…`.
    """
    _entry(spec).check(spec)


def create_tuner(spec: StudySpec, storage_url: str) -> Tuner:
    """The study's tuner.

    Args:
        spec: The study.
        storage_url: SQLAlchemy's URL of the coordinator's database, for tuners that keep something there.

    Raises:
        InvalidInputError: As in `validate_tuner`; nothing has been stored then.
        StorageError: The database cannot be used.
    """
    entry = _entry(spec)
    entry.check(spec)
    return entry.create(spec, storage_url)


def _tuners() -> dict[str, _Entry]:
    return {
        "random": _Entry(
            check=_check_random,
            create=lambda spec, _: RandomTuner(spec),
        ),
        "grid": _Entry(
            check=_check_grid,
            create=lambda spec, _: GridTuner(spec, _options(spec, GridOptions)),
        ),
        "optuna": _Entry(
            check=_check_optuna,
            create=lambda spec, url: OptunaTuner(spec, _options(spec, OptunaOptions), url),
        ),
    }


def _entry(spec: StudySpec) -> _Entry:
    tuners = _tuners()
    if spec.tuner.name not in tuners:
        said = f"is {show(spec.tuner.name)}: {one_of(spec.tuner.name, tuners)}"
        raise _refusal([FieldViolation("tuner.name", said)])
    return tuners[spec.tuner.name]


def _check_random(spec: StudySpec) -> None:
    _options(spec, RandomOptions)


def _check_grid(spec: StudySpec) -> None:
    GridTuner(spec, _options(spec, GridOptions))


def _check_optuna(spec: StudySpec) -> None:
    try:
        _options(spec, OptunaOptions).check(spec)
    except MistakesError as error:
        raise _refusal(list(error.violations)) from None


def _options(spec: StudySpec, model: type[_Options]) -> _Options:
    try:
        return model.model_validate(spec.tuner.options)
    except ValidationError as error:
        faults = [FieldViolation(join("tuner", v.field), v.description) for v in violations_of(error, model)]
        raise _refusal(faults) from None


def _refusal(faults: list[FieldViolation]) -> InvalidInputError:
    return InvalidInputError(sentences(faults), faults)
