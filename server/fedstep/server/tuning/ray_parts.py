"""Ray Tune's searchers and schedulers by name, from what a study file says of them.

Ray is imported where one is made and not before: that takes seconds. No cluster is started, and Ray is told to report
nothing to anybody.
"""

import importlib
import importlib.util
import inspect
import logging
import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import UnionType
from typing import Any, Protocol, Union, get_args, get_origin

import numpy as np

from fedstep.common.errors import FieldViolation
from fedstep.common.validation import MistakesError, join, one_of, show
from fedstep.server.tuning.optuna_storage import without_info
from fedstep.server.tuning.ray_names import SCHEDULERS, SEARCHERS, RayPart

METRIC = "value"
"""The study's objective, as Ray's classes are told of it."""

ROUNDS = "training_iteration"
"""The rounds behind a trial's model, as Ray's classes are told of them."""

_SEEDS = ("seed", "random_state_seed", "random_state")
_SET_HERE = frozenset(
    {"space", "metric", "mode", "time_attr", "max_t", "points_to_evaluate", "evaluated_rewards", "study_name"}
    | {"storage", "analysis", "verbose", "hyperparam_mutations", "hyperparam_bounds", "custom_explore_fn"}
    | {"log_config", "require_attrs", "synch", "hard_stop", "min_time_slice", "stop_last_trials"}
)
_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a table",
    list: "a list",
    tuple: "a list",
}

_TABLES = {"OptunaSearch": ("sampler",)}
"""Options that are tables in a study file, of which `ray_options` makes the object that the class wants."""


class Searcher(Protocol):
    """What is asked of a searcher: of `ray.tune.search.Searcher`, its public methods."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any]) -> bool:
        """Sets the objective and the space."""

    def suggest(self, trial_id: str) -> "dict[str, Any] | str | None":
        """A configuration, "FINISHED", or None for none now."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A round of a trial that goes on."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial."""


class Scheduler(Protocol):
    """What is asked of a scheduler: of `ray.tune.schedulers.TrialScheduler`, its methods."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """There is a new trial."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A running trial has failed."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A round; what is to become of the trial."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A running trial has come to its end."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial that does not run is given up."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The pending or paused trial that is to run next; None for none."""


@dataclass(frozen=True)
class RayParts:
    """Makes Ray's parts for one study.

    Attributes:
        direction: "minimize" or "maximize".
    """

    direction: str

    @property
    def mode(self) -> str:
        """The direction in Ray's words."""
        return "min" if self.direction == "minimize" else "max"

    def searcher(self, name: str, options: Mapping[str, Any], defaults: Mapping[str, Any], field: str) -> Searcher:
        """A searcher by its class name; its space is still to be set.

        Args:
            name: Such as "HyperOptSearch".
            options: Its keyword arguments, in JSON types.
            defaults: What is said where the options say nothing; of "seed" under the searcher's own name of it, and of
                what it does not know nothing.
            field: Where the name stands in a study file; its options stand at `{field}_options`.

        Raises:
            MistakesError: There is none of that name, a package is missing, or an option is not one of its own or not
                legal.
        """
        made: Searcher = self._make("searcher", SEARCHERS, name, options, defaults, field)
        return made

    def scheduler(self, name: str, options: Mapping[str, Any], defaults: Mapping[str, Any], field: str) -> Scheduler:
        """A scheduler by its class name; see `searcher`."""
        made: Scheduler = self._make("scheduler", SCHEDULERS, name, options, defaults, field)
        return made

    def _make(
        self,
        noun: str,
        known: Mapping[str, RayPart],
        name: str,
        options: Mapping[str, Any],
        defaults: Mapping[str, Any],
        field: str,
    ) -> Any:
        if name not in known:
            raise _mistake(field, f"is {show(name)}, and there is no such {noun}: {one_of(name, known)}")
        found = _class(name, known[name], field)
        accepted = inspect.signature(found).parameters
        faults = option_faults(name, options, accepted, f"{field}_options")
        if faults:
            raise MistakesError(faults)
        arguments = {_own_name(key, accepted): value for key, value in defaults.items()} | dict(options)
        arguments |= {"metric": METRIC, "mode": self.mode, "time_attr": ROUNDS}
        try:
            with quiet():
                return found(**{key: value for key, value in arguments.items() if key in accepted})
        except Exception as error:  # Ray's classes assert, and raise errors of many kinds
            said = str(error).split("\n")[0].rstrip(".") or type(error).__name__
            raise _mistake(f"{field}_options", f"`{name}` refuses them: {said}.") from None


def option_faults(
    name: str, options: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter], field: str
) -> list[FieldViolation]:
    """What is wrong with a part's options, each at its own field."""
    own = {key: parameter for key, parameter in accepted.items() if key not in _SET_HERE and _types(parameter)}
    known = [*own, *_TABLES.get(name, ())]
    faults = []
    for key, value in options.items():
        where = join(field, key)
        if key in accepted and key not in own:
            faults.append(FieldViolation(where, f"is not for a study file: fedstep sets `{key}` of `{name}` itself."))
        elif key not in own:
            faults.append(FieldViolation(where, f"`{name}` has no option `{key}`: {one_of(key, known)}"))
        elif not _fits(value, types := _types(own[key])):
            said = " or ".join(dict.fromkeys(_WORDS[kind] for kind in types))
            faults.append(FieldViolation(where, f"is {show(value)}: it must be {said}."))
    return faults


def load(module: str, field: str) -> Any:
    """A module of Ray's.

    Raises:
        MistakesError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _mistake(field, 'needs Ray Tune, which is not installed: pip install "fedstep[ray]".') from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Ray and the libraries behind it from announcing and warning on standard error."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with without_info(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Lends Ray's classes the randomness of a seed: some draw from the generators that all of a process shares.

    Those are as before afterwards.
    """
    before, before_numpy = random.getstate(), np.random.get_state()
    drawn = int(np.random.SeedSequence(seed).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)
    try:
        with quiet():
            yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)


def _class(name: str, part: RayPart, field: str) -> type:
    load("ray.tune", field)
    if part.imported and importlib.util.find_spec(part.imported) is None:
        raise _mistake(field, f"{name} needs the package {part.package}: pip install '{part.package}'.")
    found: type = getattr(load(part.module, field), name)
    return found


def _own_name(key: str, accepted: Mapping[str, object]) -> str:
    return next((name for name in _SEEDS if name in accepted), key) if key == "seed" else key


def _types(parameter: inspect.Parameter) -> list[type]:
    """The types of a study file that an option takes; none where it wants an object of Python's."""
    annotation = parameter.annotation
    union = get_origin(annotation) in (Union, UnionType)
    kinds = [get_origin(kind) or kind for kind in (get_args(annotation) if union else [annotation])]
    return [kind for kind in kinds if kind in _WORDS]


def _fits(value: object, types: list[type]) -> bool:
    if isinstance(value, bool):
        return bool in types
    wider = {float: (float, int), tuple: (list, tuple), dict: (Mapping,)}
    return any(isinstance(value, wider.get(kind, (kind,))) for kind in types)


def _mistake(field: str, description: str) -> MistakesError:
    return MistakesError([FieldViolation(field, description)])
