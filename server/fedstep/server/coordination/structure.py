"""Hyper-parameters that change the model, and tuners that cannot have them."""

from collections.abc import Iterator

import torch

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.grid import exists
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.parameters import CategoricalParameter, Parameter
from fedstep.common.space import Space
from fedstep.common.spec import StudySpec
from fedstep.common.standard import STANDARD
from fedstep.common.task import Task
from fedstep.common.tasks import build_model
from fedstep.common.tensors import Manifest
from fedstep.common.validation import sentences, show
from fedstep.server.coordination.run import resolve
from fedstep.server.tuning.ray_names import POPULATIONS, scheduler_of

_SHARING = ("stepwise", "fedex", "population", "outside")
"""Tuners whose configurations take over one another's weights; those of `schedule` do, from stage to stage."""

_MIDDLE = 0.5


def check_structure(spec: StudySpec, task: Task) -> None:
    """Builds the models that the study's values of the task's own hyper-parameters ask for, and compares them.

    Only the task's own may change a model: fedstep's own never do. Each of those in the space is varied by itself, over
    its choices or between its ends. Nothing is built where the study names none of them.

    Raises:
        InvalidInputError: A model cannot be built, or a hyper-parameter changes its layout under a tuner whose
            configurations share their weights; violations name the hyper-parameters.
    """
    own = [name for name in task.defaults if name not in STANDARD]
    tuned = [name for name in own if name in spec.space]
    if not tuned and not any(name in spec.hyperparameters for name in own):
        return
    faults = []
    for name in tuned:
        difference = _difference(spec, task, name)
        if difference and _shares_weights(spec, name):
            faults.append(FieldViolation(f"space.{name}", _refusal(spec, name, difference)))
    if not tuned:
        _layout(spec, task, _point(spec.space, {}), "hyperparameters")
    if faults:
        raise InvalidInputError(sentences(faults), faults)


def _shares_weights(spec: StudySpec, name: str) -> bool:
    """Whether configurations with other values of that parameter take over one another's weights.

    The step-wise tuner's screen starts all its members anew. Its probe has clients train one model at many points.
    """
    tuner, options = spec.tuner.name, spec.tuner.options
    if tuner == "stepwise" and name in options.get("screen_only", ()):
        return bool(options.get("use_probe", True))
    if tuner == "schedule":
        return len({stage.get("hyperparameters", {}).get(name) for stage in options["stages"]}) > 1
    return tuner in _SHARING or scheduler_of(spec) in POPULATIONS


def _refusal(spec: StudySpec, name: str, difference: str) -> str:
    tuner = spec.tuner.name
    text = (
        f"changes the model ({difference}), and under the tuner {tuner} configurations go on from one another's "
        f"weights: fix {name} in [hyperparameters], or take a tuner by trials, such as optuna, which builds a model "
        "for each trial"
    )
    return f"{text}; or set screen_only = [{show(name)}] and use_probe = false." if tuner == "stepwise" else f"{text}."


def _difference(spec: StudySpec, task: Task, name: str) -> str | None:
    """How the model's layout differs between two values of the parameter; None where it does not.

    With any choice of the task's other categoricals: one network has a width that another does not.
    """
    others = [
        {other: choice}
        for other, parameter in spec.space.ordered.items()
        if isinstance(parameter, CategoricalParameter) and other in task.defaults and other not in (*STANDARD, name)
        for choice in parameter.choices
    ]
    found: str | None = None
    for beside in others or [{}]:
        first: Manifest | None = None
        for value in _extremes(spec.space[name]):
            point = _point(spec.space, {**beside, **_parents(spec.space, name), name: value})
            layout = _layout(spec, task, point, f"space.{name}")
            first = first or layout
            found = found or layout.difference(first)
    return found


def _layout(spec: StudySpec, task: Task, point: Hyperparameters, field: str) -> Manifest:
    """The layout of the model at a point of the space.

    Raises:
        InvalidInputError: The task cannot build it.
    """
    values = resolve(spec, task, point)
    try:
        with torch.random.fork_rng(devices=[]):
            return Manifest.of(build_model(task, values).state_dict())
    except InvalidInputError as error:
        text = f"t{error.message[1:]}"
        raise InvalidInputError(f"{field}: {text}", [FieldViolation(field, text)]) from error


def _extremes(parameter: Parameter) -> Iterator[Value]:
    if isinstance(parameter, CategoricalParameter):
        yield from parameter.choices
    else:
        yield from (parameter.low, parameter.high)


def _parents(space: Space, name: str) -> dict[str, Value]:
    """Values of a parameter's parents, and of theirs, with which it exists."""
    wanted: dict[str, Value] = {}
    for parent, values in space[name].when.items():
        wanted |= {**_parents(space, parent), parent: values[0]}
    return wanted


def _point(space: Space, chosen: Hyperparameters) -> dict[str, Value]:
    """The middle of the space, but for what is chosen."""
    point: dict[str, Value] = {}
    for name, parameter in space.ordered.items():
        if exists(parameter, point):
            point[name] = chosen[name] if name in chosen else parameter.from_unit(_MIDDLE)
    return point
