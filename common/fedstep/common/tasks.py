"""Finds a task: a built-in one by name, or one of one's own by path or module name."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from torch import nn

from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.legal import standard_fault
from fedstep.common.raised import RAISED, in_a_sentence, kind_of, raised, somebodys_code
from fedstep.common.standard import DEFAULTS, STANDARD
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.validation import nearest, show

_GROUP = "fedstep.tasks"
_ATTRIBUTE = "task"

_TWO_BUILDS = (
    " The torchvision that is installed is built for another torch: install both from one index (`pip install torch "
    "torchvision --index-url https://download.pytorch.org/whl/cpu`), or have the file call "
    "fedstep.client.vision.load_torchvision() before it imports what needs it."
)


def available_tasks() -> list[str]:
    """The names of the tasks that installed packages bring, sorted. None of them is imported."""
    return sorted(_entry_points())


def load_task(reference: str) -> Task:
    """The task that a study file or `--task` names.

    Args:
        reference: A built-in name such as `digits`; a path to one .py file; or `package.module`, optionally with
            `:attribute`. A file or module holds a variable `task`, or one subclass of `Task`.

    Raises:
        InvalidInputError: There is no such task, its file cannot be imported, or it is not sane; one sentence.
    """
    if reference.endswith(".py"):
        task = _task_in(_import_file(Path(reference)), None, reference)
    elif "." in reference or ":" in reference:
        name, _, attribute = reference.partition(":")
        task = _task_in(_import_module(name, reference), attribute or None, reference)
    else:
        task = _built_in(reference)
    _check(task, reference)
    return task


def full_hyperparameters(task: Task, values: Hyperparameters) -> dict[str, Value]:
    """Every hyper-parameter there is: fedstep's own defaults, then the task's, then the values given.

    Both sides hand this to `build_model`, so that they build the same model.
    """
    return {**DEFAULTS, **task.defaults, **values}


def load_client_data(task: Task, client: ClientInfo) -> ClientData:
    """What the task's `load_data` answers.

    Raises:
        InvalidInputError: It cannot be read, or the answer is none; one sentence.
    """
    with somebodys_code(f"The task {task.name} cannot load its data"):
        data: object = task.load_data(client)
    if not isinstance(data, ClientData):
        raise InvalidInputError(
            f"The load_data() of the task {task.name} returned {kind_of(data)}: let it return ClientData(train, "
            "validation)."
        )
    return data


def build_model(task: Task, values: Hyperparameters) -> nn.Module:
    """What the task's `build_model` makes of these.

    Raises:
        InvalidInputError: It cannot; one sentence.
    """
    try:
        model: object = task.build_model(values)
    except RAISED as error:  # a task of the user's may raise anything
        shown = ", ".join(f"{name} = {show(value)}" for name, value in values.items() if name not in STANDARD)
        raise InvalidInputError(
            f"The task {task.name} builds no model{' with ' * bool(shown)}{shown}: {in_a_sentence(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"The build_model() of the task {task.name} returned {kind_of(model)}: let it return a torch.nn.Module."
        )
    return model


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_GROUP)}


def _built_in(name: str) -> Task:
    known = _entry_points()
    if name not in known:
        near = nearest(name, list(known))
        hint = f'did you mean "{near}"?' if near else f"there are {', '.join(sorted(known)) or 'none'}."
        raise InvalidInputError(
            f'There is no built-in task "{name}": {hint} A task of your own is given as a path to its .py file '
            "or as package.module."
        )
    entry = known[name]
    return _task_in(_import_module(entry.module, name), entry.attr or None, name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInputError(f"There is no task file {path}: give a path to a .py file that exists.")
    path = path.resolve()
    name = f"fedstep_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInputError(f"{path} cannot be imported as Python: give a path to a .py file.")
    _make_importable(path.parent)
    module = importlib.util.module_from_spec(spec)
    # Known under its name while it runs and after: dataclasses and pickling look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except RAISED as error:  # a file of the user's may raise anything
        del sys.modules[name]
        raise _import_error(str(path), error) from error
    return module


def _import_module(name: str, reference: str) -> ModuleType:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidInputError(
                f'There is no module {name} for the task "{reference}": install the package that has it, start in the '
                "folder that holds it, or give a path to its .py file."
            ) from error
        raise _import_error(reference, error) from error
    except RAISED as error:  # a module of the user's may raise anything
        raise _import_error(reference, error) from error


def _make_importable(folder: Path) -> None:
    """Lets a task import what lies beside it; last in the path, so that it can hide nothing."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _import_error(reference: str, error: BaseException) -> InvalidInputError:
    hint = _TWO_BUILDS if "operator torchvision::" in str(error) else ""
    return InvalidInputError(f"The task {reference} cannot be imported: {raised(error)}{hint}")


def _task_in(module: ModuleType, attribute: str | None, reference: str) -> Task:
    found: object = getattr(module, attribute or _ATTRIBUTE, None)
    if found is None and attribute is None:
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
        ]
        if len(classes) > 1:
            names = ", ".join(kind.__name__ for kind in classes)
            raise InvalidInputError(
                f"{reference} has several tasks ({names}): say which with a line such as "
                f'"task = {classes[0].__name__}()".'
            )
        found = classes[0] if classes else None
    if found is None:
        raise InvalidInputError(
            f"There is no {attribute or _ATTRIBUTE} in {reference}: put a variable of that name, "
            "an object of a subclass of fedstep.common.task.Task, into it."
        )
    if isinstance(found, type) and issubclass(found, Task):
        return _instance(found, reference)
    if not isinstance(found, Task):
        raise InvalidInputError(
            f"{attribute or _ATTRIBUTE} in {reference} is a {type(found).__name__}: it must be an object of a "
            "subclass of fedstep.common.task.Task."
        )
    return found


def _instance(kind: type[Task], reference: str) -> Task:
    with somebodys_code(f"The task {kind.__name__} in {reference} cannot be made"):
        return kind()


def _check(task: Task, reference: str) -> None:
    with somebodys_code(f"The task {reference} has no name or no defaults"):
        name: object = getattr(task, "name", None)
        given: object = task.defaults
        defaults = dict(given) if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f'The task {reference} has no name: give its class a line such as name = "mine".')
    if defaults is None:
        raise InvalidInputError(f'The defaults of the task {name} are {kind_of(given)}: make them {{"lr": 0.1}}.')
    for parameter, value in defaults.items():
        if not isinstance(value, float | int | str):
            raise InvalidInputError(
                f"The task {name} has the default {parameter} = {value!r}: make it a number, a string or a bool."
            )
        fault = standard_fault(parameter, value) if parameter in STANDARD else None
        if fault:
            raise InvalidInputError(f"The default {parameter} of the task {name} {fault}")
