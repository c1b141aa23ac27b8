"""What a study is checked for before it is taken: that all it names is there, and that its parts suit it."""

from collections.abc import Callable, Iterable
from functools import partial

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.names import check_names
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.validation import sentences
from fedstep.server.aggregation.registry import validate_aggregator
from fedstep.server.selection.registry import validate_selector
from fedstep.server.tuning.registry import validate_tuner


def check_parts(spec: StudySpec, task: Task | None, found: Iterable[FieldViolation] = ()) -> None:
    """Checks hyper-parameters, tuner, selector and aggregator, and says all that is wrong at once.

    Args:
        spec: The study.
        task: Its task; None where it is not here, and then nothing is known of names of hyper-parameters.
        found: What is wrong already, such as that there is no such task.

    Raises:
        InvalidInputError: Something is; each violation names its field.
    """
    checks: list[Callable[[], None]] = [
        partial(validate_tuner, spec, task.defaults if task else None),
        partial(validate_selector, spec.selector),
        partial(validate_aggregator, spec.aggregator),
    ]
    if task:
        checks.insert(0, partial(check_names, spec, task.defaults, spec.task))
    faults = [*found, *(fault for check in checks for fault in _faults(check))]
    if faults:
        raise InvalidInputError(sentences(faults), faults)


def _faults(check: Callable[[], None]) -> Iterable[FieldViolation]:
    try:
        check()
    except InvalidInputError as error:
        return error.violations or [FieldViolation("", error.message)]
    return ()
