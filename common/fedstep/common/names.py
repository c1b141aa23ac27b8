"""Whether a study names only hyper-parameters that somebody acts on."""

from collections.abc import Mapping

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.legal import type_fault
from fedstep.common.parameters import CategoricalParameter, Parameter
from fedstep.common.spec import StudySpec
from fedstep.common.standard import STANDARD
from fedstep.common.validation import nearest, sentences


def check_names(spec: StudySpec, task_defaults: Mapping[str, Value], task: str) -> None:
    """Checks every tuned and fixed hyper-parameter against the standard ones and the task's own.

    What can be checked without the task, `StudySpec` has checked: the ranges of standard names, and that nothing is
    both fixed and tuned.

    Args:
        spec: The study.
        task_defaults: `Task.defaults` of its task.
        task: The task's name, for the sentence.

    Raises:
        InvalidInputError: A name is in neither, or a value is not of its default's type.
    """
    known = [*dict.fromkeys([*STANDARD, *task_defaults])]
    faults = []
    for table, names in (("space", list(spec.space.parameters)), ("hyperparameters", list(spec.hyperparameters))):
        faults += [
            FieldViolation(f"{table}.{name}", _unknown(name, known, task)) for name in names if name not in known
        ]
    own = {name: default for name, default in task_defaults.items() if name not in STANDARD}
    for name, default in own.items():
        fault = None
        if name in spec.hyperparameters:
            fault = type_fault(spec.hyperparameters[name], default)
            faults += [FieldViolation(f"hyperparameters.{name}", fault)] if fault else []
        elif name in spec.space:
            fault = _range_fault(spec.space[name], default)
            faults += [FieldViolation(f"space.{name}", fault)] if fault else []
    if faults:
        raise InvalidInputError(sentences(faults), faults)


def _unknown(name: str, known: list[str], task: str) -> str:
    close = nearest(name, known)
    hint = f"did you mean `{close}`?" if close else f"known are {', '.join(f'`{other}`' for other in known)}."
    return f"neither fedstep nor the task {task} knows `{name}`: {hint}"


def _range_fault(parameter: Parameter, default: Value) -> str | None:
    """What is wrong with the type of a task's own parameter; an int range may stand for a real one."""
    if isinstance(parameter, CategoricalParameter):
        return next((fault for choice in parameter.choices if (fault := type_fault(choice, default))), None)
    fault = type_fault(parameter.low, default)
    return f"is a range of type {parameter.type}, but its default is {default!r}: use that type." if fault else None
