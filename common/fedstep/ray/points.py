"""What Ray proposes as a point of a study's space."""

from collections.abc import Mapping
from typing import Any

from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import nearest
from fedstep.common.space import Space


def point_of(space: Space, config: Mapping[str, Any]) -> dict[str, Value]:
    """The nearest point of the space, of the parameters that exist there; what else is in the config is passed over.

    Population-based training multiplies what is good already, past the ends of a range too, and Bayesian searchers
    know real numbers only. What has no nearest value is left for the coordinator to refuse.

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


def _plain(value: Any) -> Value:
    plain: Value = value.item() if hasattr(value, "item") else value
    return plain
