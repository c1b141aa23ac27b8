"""The study's space in Ray Tune's domains, and what is made of a configuration of Ray's."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import CategoricalParameter, FloatParameter, Parameter, nearest
from fedstep.common.space import Space
from fedstep.server.tuning.ray_names import VARIANTS


def domains_of(parameters: Mapping[str, Parameter], low: float, high: float) -> dict[str, Any]:
    """Ray's domains for parameters of which each number lies in that range, and each choice is told by its position."""
    from ray import tune

    return {
        name: tune.choice(list(range(len(parameter.choices))))
        if isinstance(parameter, CategoricalParameter)
        else tune.uniform(low, high)
        for name, parameter in parameters.items()
    }


class RaySpace(ABC):
    """A way to say the space in Ray's domains."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def domains(self) -> dict[str, Any]:
        """Ray's domain of each parameter, as if none had a condition; none where the searcher is told otherwise."""
        return {}

    @abstractmethod
    def explored(self) -> dict[str, Any]:
        """What a population's scheduler is told of the space: its keyword arguments."""

    @abstractmethod
    def value(self, parameter: Parameter, told: Any) -> Value:
        """A parameter's value of what Ray says it is."""

    def point(self, config: Mapping[str, Any]) -> dict[str, Value]:
        """The point of the space that a configuration of Ray's stands for."""
        values: dict[str, Value] = {}
        for name, parameter in self.space.active(values):
            values[name] = self.value(parameter, config[name])
        return values


class UnitSpace(RaySpace):
    """Numbers on their own scale from 0 to 1, and a choice by its position.

    Logarithms and steps are then the space's own. Ray's searchers translate its domains for log and quantised numbers
    each in its own way, and some drop them.
    """

    def domains(self) -> dict[str, Any]:
        """See `RaySpace.domains`."""
        return domains_of(self.space.ordered, 0.0, 1.0)

    def value(self, parameter: Parameter, told: Any) -> Value:
        """See `RaySpace.value`."""
        if isinstance(parameter, CategoricalParameter):
            return parameter.choices[int(told)]
        return parameter.from_unit(min(max(float(told), 0.0), 1.0))

    def explored(self) -> dict[str, Any]:
        """The numbers and their range; PB2 knows nothing else."""
        numbers = (name for name, found in self.space.ordered.items() if not isinstance(found, CategoricalParameter))
        return {"hyperparam_bounds": {name: [0.0, 1.0] for name in numbers}}


class PlainSpace(RaySpace):
    """Every parameter's own values, for what multiplies them or asks for them one by one."""

    def explored(self) -> dict[str, Any]:
        """Ray's domain of each number, and the list of each one's choices, whose neighbours it takes for near."""
        mutations = {name: _mutation(parameter) for name, parameter in self.space.ordered.items()}
        return {"hyperparam_mutations": mutations, "custom_explore_fn": self._pulled_in}

    def value(self, parameter: Parameter, told: Any) -> Value:
        """The value itself, or the nearest that the parameter has."""
        return nearest(parameter, told)

    def _pulled_in(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration whose values are all of the space."""
        return {name: self.value(self.space[name], told) for name, told in config.items()}


def _mutation(parameter: Parameter) -> Any:
    from ray import tune

    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if parameter.low == parameter.high:
        return [parameter.low]
    if isinstance(parameter, FloatParameter):
        return (tune.loguniform if parameter.log else tune.uniform)(parameter.low, parameter.high)
    return (tune.lograndint if parameter.log else tune.randint)(parameter.low, parameter.high + 1)


def searcher_faults(name: str, space: Space, field: str) -> list[FieldViolation]:
    """Why a searcher cannot search that space; empty when it can.

    Args:
        name: The searcher's class name.
        space: The study's.
        field: Where the name stands.
    """
    if name in ("OptunaSearch", VARIANTS):
        return []
    faults = []
    instead = f"take OptunaSearch or {VARIANTS}"
    conditional = [other for other, parameter in space.parameters.items() if parameter.when]
    if conditional:
        said = f"{name} knows no conditions, and `{conditional[0]}` has one (`when`): {instead}."
        faults.append(FieldViolation(field, said))
    choices = [other for other, parameter in space.parameters.items() if isinstance(parameter, CategoricalParameter)]
    if choices and name == "BayesOptSearch":
        said = f"{name} searches numbers only, and `{choices[0]}` is a choice: take OptunaSearch or HyperOptSearch."
        faults.append(FieldViolation(field, said))
    return faults
