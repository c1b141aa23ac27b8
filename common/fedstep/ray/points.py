"""What Ray proposes as a point of a study's space."""

import math
from collections.abc import Mapping
from typing import Any

from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import CategoricalParameter, FloatParameter, IntParameter, Parameter
from fedstep.common.space import Space


def point_of(space: Space, config: Mapping[str, Any]) -> dict[str, Value]:
    """The nearest point of the space, of the parameters that exist there; what else is in the config is passed over.

    Population-based training multiplies what is good already, past the ends of a range too, and Bayesian searchers
    know real numbers only.

    Args:
        space: The study's.
        config: A trial's, numbers of numpy included.
    """
    plain = {name: _plain(value) for name, value in config.items() if name in space}
    point: dict[str, Value] = {}
    for name, parameter in space.active(point):
        if name in plain:
            point[name] = nearest(parameter, plain[name])
    return point


def nearest(parameter: Parameter, value: Value) -> Value:
    """The parameter's legal value nearest to this one; itself where there is none, for the coordinator to refuse."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(parameter, CategoricalParameter) or not number:
        legal = parameter.normal(value)
        return value if legal is None else legal
    return _in_range(parameter, float(value))


def _in_range(parameter: FloatParameter | IntParameter, value: float) -> Value:
    value = min(max(value, parameter.low), parameter.high)
    if parameter.step:
        steps = round((value - parameter.low) / parameter.step)
        value = parameter.low + steps * parameter.step
        value = value if value <= parameter.high else value - parameter.step
    legal = parameter.normal(round(value) if isinstance(parameter, IntParameter) else value)
    # What rounding has moved is on the parameter's own steps after a way there and back.
    return parameter.from_unit(parameter.to_unit(value)) if legal is None else legal


def _plain(value: Any) -> Value:
    plain: Value = value.item() if hasattr(value, "item") else value
    return plain
