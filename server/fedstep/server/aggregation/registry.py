"""The built-in aggregators by name: how updates are combined, and what the coordinator makes of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.common.standard import STANDARD, Scope
from fedstep.common.validation import one_of, sentences, show
from fedstep.server.aggregation.base import Aggregator, ServerOptimizer
from fedstep.server.aggregation.mean import FedNova, WeightedMean
from fedstep.server.aggregation.server_optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi


@dataclass(frozen=True)
class _Parts:
    aggregator: Callable[[int], Aggregator]
    optimizer: Callable[[], ServerOptimizer]


_BUILT_IN: Mapping[str, _Parts] = MappingProxyType(
    {
        "fedavg": _Parts(WeightedMean, FedAvg),
        "fedavgm": _Parts(WeightedMean, FedAvgM),
        "fedadam": _Parts(WeightedMean, FedAdam),
        "fedyogi": _Parts(WeightedMean, FedYogi),
        "fedadagrad": _Parts(WeightedMean, FedAdagrad),
        "fednova": _Parts(FedNova, FedAvg),
    }
)


def validate_aggregator(spec: Plugin) -> None:
    """Checks the name and the options of a study's aggregator.

    Raises:
        InvalidInputError: There is none of that name, or it does not take such an option; with the nearest name.
    """
    if spec.name not in _BUILT_IN:
        violations = [FieldViolation("aggregator.name", f"is {show(spec.name)}: {one_of(spec.name, _BUILT_IN)}")]
    else:
        violations = [
            FieldViolation(f"aggregator.{option}", f"{spec.name} takes no options: {_where(option)}")
            for option in spec.options
        ]
    if violations:
        raise InvalidInputError(sentences(violations), violations)


def create_aggregator(spec: Plugin, elements: int) -> Aggregator:
    """The aggregator of a study, for models of that many elements.

    Raises:
        InvalidInputError: As `validate_aggregator`.
    """
    validate_aggregator(spec)
    return _BUILT_IN[spec.name].aggregator(elements)


def create_server_optimizer(spec: Plugin) -> ServerOptimizer:
    """The server optimizer of a study.

    Raises:
        InvalidInputError: As `validate_aggregator`.
    """
    validate_aggregator(spec)
    return _BUILT_IN[spec.name].optimizer()


def _where(option: str) -> str:
    """What to do with a key that is not an option: most often it is a hyper-parameter in the wrong table."""
    known = STANDARD.get(option)
    if known is not None and known.scope is Scope.SERVER:
        return f"`{option}` is a hyper-parameter, put it into [space] to tune it or into [hyperparameters] to fix it."
    return "remove this line."
