"""What a configuration comes to: its effective learning rates, and how hard it trains."""

import math
from collections.abc import Mapping

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.parameters import CategoricalParameter, IntParameter, Parameter
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS

_TINY = 1e-12


class Scales:
    """Reads points of a study's space together with what is fixed.

    Args:
        spec: The study.
        defaults: The task's own defaults.
    """

    def __init__(self, spec: StudySpec, defaults: Mapping[str, Value]) -> None:
        self.space = spec.space
        self._fixed: dict[str, Value] = {**DEFAULTS, **defaults, **spec.hyperparameters}
        self._aggregator = spec.aggregator.name

    def default_point(self, start: Mapping[str, Value]) -> dict[str, Value]:
        """The configuration that a person would begin with: start, else the task's, else fedstep's own defaults.

        A default outside of its range becomes the nearest value in it; where there is none, the middle is taken.
        """
        known = {**self._fixed, **start}
        point: dict[str, Value] = {}
        for name, parameter in self.space.active(point):
            point[name] = _nearest(parameter, known[name]) if name in known else parameter.from_unit(0.5)
        return point

    def optimizer(self, point: Hyperparameters) -> str:
        """The local optimizer's name; learning rates of different ones are not compared."""
        return str({**self._fixed, **point}["optimizer"])

    def effective_lr(self, point: Hyperparameters) -> float:
        """lr / (1 - momentum) of SGD, lr of the adaptive optimizers; greater than 0."""
        lr = max(self._number(point, "lr"), _TINY)
        momentum = self._number(point, "momentum") if self.optimizer(point) == "sgd" else 0.0
        return lr / max(1.0 - momentum, _TINY)

    def effective_server_lr(self, point: Hyperparameters) -> float | None:
        """server_lr / (1 - server_momentum); None where the server optimizer normalises its steps."""
        rate = self._number(point, "server_lr")
        if self._aggregator == "fedavgm":
            return rate / max(1.0 - self._number(point, "server_momentum"), _TINY)
        return rate if self._aggregator in ("fedavg", "fednova") else None

    def strength(self, point: Hyperparameters) -> float:
        """How hard a round trains: lr_eff · epochs / batch."""
        epochs, batch = self._number(point, "local_epochs"), self._number(point, "batch_size")
        return self.effective_lr(point) * epochs / max(batch, 1.0)

    def scaled(self, point: Hyperparameters, name: str, factor: float) -> dict[str, Value]:
        """The point with one value multiplied, as far as its range allows; unchanged where it is not tuned."""
        value = point.get(name)
        if isinstance(value, bool | str) or value is None:
            return dict(point)
        return {**point, name: _nearest(self.space[name], value * factor)}

    def _number(self, point: Hyperparameters, name: str) -> float:
        return float(point.get(name, self._fixed[name]))


def _nearest(parameter: Parameter, value: Value) -> Value:
    """The legal value that is nearest, on the parameter's own scale."""
    legal = parameter.normal(value)
    if legal is not None:
        return legal
    if isinstance(parameter, CategoricalParameter):
        if isinstance(value, bool | str) or isinstance(parameter.choices[0], bool | str):
            return parameter.choices[0]
        return min(parameter.choices, key=lambda choice: _distance(float(choice), float(value)))
    if isinstance(value, str) or not math.isfinite(value):
        return parameter.from_unit(0.5)
    inside = min(max(float(value), float(parameter.low)), float(parameter.high))
    if isinstance(parameter, IntParameter):
        inside = round(inside)
    return parameter.from_unit(parameter.to_unit(inside)) if parameter.step is not None else inside


def _distance(a: float, b: float) -> float:
    return abs(math.log(a / b)) if a > 0 and b > 0 else abs(a - b)
