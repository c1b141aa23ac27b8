"""The study's space in Optuna's terms, and which samplers can search it."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.parameters import CategoricalParameter, FloatParameter, Parameter
from fedstep.common.space import Space
from fedstep.common.validation import join


def suggest_point(trial: optuna.Trial, space: Space) -> dict[str, Value]:
    """Lets the study's sampler choose a point, parents first; what does not exist there is not asked for."""
    values: dict[str, Value] = {}
    for name, parameter in space.active(values):
        values[name] = _suggest(trial, name, parameter)
    return values


def suggested(space: Space, params: Mapping[str, Any]) -> dict[str, Value]:
    """The point that Optuna keeps as a trial's parameters."""
    return {name: _exact(space[name], value) for name, value in params.items() if name in space}


def distributions_of(space: Space, values: Hyperparameters) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the parameters that exist at that point."""
    return {name: _distribution(parameter) for name, parameter in space.active(values)}


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    if isinstance(parameter, CategoricalParameter):
        choice = trial.suggest_categorical(name, parameter.choices)
        assert choice is not None  # a space holds no None, which Optuna's would
        return choice
    if isinstance(parameter, FloatParameter):
        value = trial.suggest_float(name, parameter.low, _highest(parameter), log=parameter.log, step=parameter.step)
        return _exact(parameter, value)
    highest = parameter.low + parameter.last_step * parameter.step
    return trial.suggest_int(name, parameter.low, highest, log=parameter.log, step=parameter.step)


def _exact(parameter: Parameter, value: Value) -> Value:
    """Optuna computes a step in binary: 0.1 + 2 · 0.1 is 0.30000000000000004 there and 0.3 here."""
    stepped = isinstance(parameter, FloatParameter) and parameter.step is not None
    return parameter.from_unit(parameter.to_unit(value)) if stepped else value


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, CategoricalParameter):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(parameter.low, _highest(parameter), log=parameter.log, step=parameter.step)
    highest = parameter.low + parameter.last_step * parameter.step
    return IntDistribution(parameter.low, highest, log=parameter.log, step=parameter.step)


def _highest(parameter: FloatParameter) -> float:
    """The greatest value there is; Optuna warns of a range that its step does not divide."""
    return parameter.high if parameter.step is None else float(parameter.from_unit(1.0))


def space_faults(name: str, options: Mapping[str, Any], space: Space, field: str) -> list[FieldViolation]:
    """Why a sampler cannot search that space; empty when it can.

    Args:
        name: The sampler's class name.
        options: Its options.
        space: The study's.
        field: Where the name stands; its options stand at `{field}_options`, or beside a nested name.
    """
    inside = field.removesuffix(".name") if field.endswith(".name") else f"{field}_options"
    if name == "PartialFixedSampler":
        faults = space.value_faults(options.get("fixed_params", {}), join(inside, "fixed_params"))
        base = options.get("base_sampler")
        if isinstance(base, Mapping) and isinstance(base.get("name"), str):
            faults += space_faults(base["name"], base, space, join(inside, "base_sampler.name"))
        return faults
    if name == "BruteForceSampler":
        return [
            FieldViolation(f"space.{other}", f"is without end for {name}: give it a step, or take another sampler.")
            for other, parameter in space.parameters.items()
            if isinstance(parameter, FloatParameter) and parameter.step is None and parameter.low < parameter.high
        ]
    if name == "GridSampler":
        grid = options.get("search_space", {})
        where = join(inside, "search_space")
        missing = [other for other in space.parameters if other not in grid]
        faults = [FieldViolation(where, f"does not name `{other}`: list its values.") for other in missing]
        lists = {other: values if isinstance(values, list) else [values] for other, values in grid.items()}
        return faults + [
            fault for other, values in lists.items() for v in values for fault in space.value_faults({other: v}, where)
        ]
    return []
