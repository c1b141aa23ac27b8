"""Optuna's samplers and pruners by name, from what a study file says of them.

Everything public of Optuna can be named; what wraps another takes a table: `base_sampler = { name = "TPESampler" }`.
"""

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from fedstep.common.errors import FieldViolation
from fedstep.common.validation import MistakesError, join, one_of, show


@dataclass(frozen=True)
class Seeds:
    """Where a sampler's randomness comes from.

    Attributes:
        study: The study's seed: the same for every arm, for samplers that walk one sequence.
        arm: The arm's number, for all others: a study that was restarted does not draw the same points again.
    """

    study: int
    arm: int

    def of_study(self) -> int:
        """The same 32 bits for every arm."""
        return int(np.random.SeedSequence([self.study]).generate_state(1)[0])

    def of_arm(self) -> int:
        """32 bits for this arm alone."""
        return int(np.random.SeedSequence([self.study, self.arm]).generate_state(1)[0])


@dataclass(frozen=True)
class _Kind:
    noun: str
    base: type
    module: ModuleType

    def classes(self) -> dict[str, type]:
        """Every public class of the kind, by name."""
        public = {name: getattr(self.module, name) for name in self.module.__all__}
        return {
            name: found
            for name, found in public.items()
            if isinstance(found, type) and issubclass(found, self.base) and not name.startswith("Base")
        }


@dataclass(frozen=True)
class PartFactory:
    """Makes Optuna's parts for one arm.

    Attributes:
        seeds: For the parts that draw.
        startup_trials: Trials that a model-based sampler draws at random first, where nothing else is said. Optuna's
            own 10 would make most federated studies random search.
        rounds: Rounds of an unpruned trial, which Hyperband would otherwise wait for a complete trial to learn.
    """

    seeds: Seeds
    startup_trials: int
    rounds: int

    def sampler(self, name: str, options: Mapping[str, Any], field: str) -> optuna.samplers.BaseSampler:
        """A sampler by its class name.

        Args:
            name: Such as "TPESampler".
            options: Its keyword arguments, in JSON types.
            field: Where the name stands in a study file; its options stand at `{field}_options`.

        Raises:
            MistakesError: There is none of that name, or an option is not one of its own or not legal.
        """
        sampler = self._make(_kinds()["BaseSampler"], name, options, field, f"{field}_options")
        assert isinstance(sampler, optuna.samplers.BaseSampler)
        return sampler

    def pruner(self, name: str, options: Mapping[str, Any], field: str) -> optuna.pruners.BasePruner:
        """A pruner by its class name; see `sampler`."""
        pruner = self._make(_kinds()["BasePruner"], name, options, field, f"{field}_options")
        assert isinstance(pruner, optuna.pruners.BasePruner)
        return pruner

    def _make(self, kind: _Kind, name: str, options: Mapping[str, Any], name_field: str, options_field: str) -> object:
        found = kind.classes().get(name)
        if found is None:
            hint = one_of(name, kind.classes())
            raise MistakesError([FieldViolation(name_field, f"Optuna has no {kind.noun} {show(name)}: {hint}")])
        accepted = _parameters(found)
        faults: list[FieldViolation] = []
        arguments = self._defaults(name)
        for option, value in options.items():
            field = join(options_field, option)
            if option not in accepted:
                faults.append(FieldViolation(field, f"`{name}` has no option `{option}`: {one_of(option, accepted)}"))
                continue
            try:
                arguments[option] = self._argument(value, _annotation(accepted[option]), field)
            except MistakesError as error:
                faults += error.violations
        for option, parameter in accepted.items():
            if parameter.default is parameter.empty and option not in options:
                if "None" in _annotation(parameter):
                    arguments[option] = None
                else:
                    faults.append(FieldViolation(join(options_field, option), f"is missing: `{name}` needs it."))
        if not faults and "seed" in accepted and options.get("seed", 0) < 0:
            faults.append(FieldViolation(join(options_field, "seed"), "is negative: it must be at least 0."))
        if faults:
            raise MistakesError(faults)
        if "seed" in accepted:
            arguments["seed"] = self._seed(name, options)
        try:
            with warnings.catch_warnings():
                # Whoever names a part in a study file has chosen it; Optuna's interface to it is ours to follow.
                warnings.simplefilter("ignore", ExperimentalWarning)
                return found(**arguments)
        except (ValueError, TypeError, ImportError) as error:
            said = str(error).split("\n")[0].rstrip(".")
            raise MistakesError([FieldViolation(options_field, f"`{name}` refuses them: {said}.")]) from None

    def _defaults(self, name: str) -> dict[str, Any]:
        """What fedstep says where the study says nothing."""
        arguments: dict[str, Any] = {}
        if name in ("TPESampler", "GPSampler"):
            arguments["n_startup_trials"] = self.startup_trials
        if name == "HyperbandPruner":
            arguments["max_resource"] = self.rounds
        if name == "QMCSampler":
            # The sequence needs one seed for all arms; what falls outside of it must not repeat after a restart.
            arguments["independent_sampler"] = optuna.samplers.RandomSampler(seed=self.seeds.of_arm())
        return arguments

    def _seed(self, name: str, options: Mapping[str, Any]) -> int:
        seeds = Seeds(options["seed"], self.seeds.arm) if "seed" in options else self.seeds
        return seeds.of_study() if name in ("QMCSampler", "GridSampler") else seeds.of_arm()

    def _argument(self, value: object, annotation: str, field: str) -> object:
        """An option as the keyword argument that Optuna takes."""
        for base, kind in _kinds().items():
            if base not in annotation:
                continue
            if isinstance(value, Mapping) and isinstance(value.get("name"), str):
                options = {key: item for key, item in value.items() if key != "name"}
                return self._make(kind, value["name"], options, join(field, "name"), field)
            example = next(iter(kind.classes()))
            raise MistakesError(
                [FieldViolation(field, f'is {show(value)}: it must be a table such as {{ name = "{example}" }}.')]
            )
        fault = _type_fault(value, annotation)
        if fault:
            raise MistakesError([FieldViolation(field, fault)])
        return value


def _kinds() -> dict[str, _Kind]:
    """What can be named inside options, by the base class that Optuna's annotations call it."""
    return {
        "BaseSampler": _Kind("sampler", optuna.samplers.BaseSampler, optuna.samplers),
        "BasePruner": _Kind("pruner", optuna.pruners.BasePruner, optuna.pruners),
        "BaseCrossover": _Kind("crossover", optuna.samplers.nsgaii.BaseCrossover, optuna.samplers.nsgaii),
        "BaseMutation": _Kind("mutation", optuna.samplers.nsgaii.BaseMutation, optuna.samplers.nsgaii),
    }


def _parameters(found: type) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a class; none where it has no constructor of its own."""
    parameters = list(inspect.signature(found).parameters.values())
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "dict": "a table"}


def _type_fault(value: object, annotation: str) -> str | None:
    """What is wrong with an option's type; None when nothing is. Optuna would find out in the middle of a study."""
    names = {re.split(r"[\[ ]", part.strip())[0] for part in re.split(r"\|(?![^\[]*\])", annotation)}
    names = {"dict" if name == "Mapping" else name for name in names}
    words = [_WORDS[name] for name in _WORDS if name in names]
    if not words:
        return "is a Python object, which a study file cannot hold: leave it out."
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "str": isinstance(value, str),
        "dict": isinstance(value, Mapping),
    }
    return None if any(fits.get(name) for name in names) else f"is {show(value)}: it must be {' or '.join(words)}."
