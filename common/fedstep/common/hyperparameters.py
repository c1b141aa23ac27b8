"""The values of hyper-parameters, and what they look like to people and on the wire."""

from collections.abc import Mapping

from fedstep.v1 import hyperparameters_pb2 as pb

Value = float | int | str | bool
"""One hyper-parameter's value."""

Hyperparameters = Mapping[str, Value]
"""Values by name; a conditional parameter that does not apply is absent."""


def describe(values: Hyperparameters) -> str:
    """Values by name in one line for people, numbers to four digits; "" for none."""
    parts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())
    return ", ".join(parts)


def to_proto(value: Value) -> pb.HyperparameterValue:
    """One value as a message, in its own type."""
    match value:
        case bool():  # before int: a bool is one
            return pb.HyperparameterValue(bool_value=value)
        case int():
            return pb.HyperparameterValue(int_value=value)
        case float():
            return pb.HyperparameterValue(double_value=value)
        case _:
            return pb.HyperparameterValue(string_value=value)


def from_proto(message: pb.HyperparameterValue) -> Value:
    """The value a message holds.

    Raises:
        ValueError: It holds none.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise ValueError("a hyper-parameter without a value")
    value: Value = getattr(message, kind)
    return value


def map_to_proto(values: Hyperparameters) -> dict[str, pb.HyperparameterValue]:
    """Values by name as messages."""
    return {name: to_proto(value) for name, value in values.items()}


def map_from_proto(messages: Mapping[str, pb.HyperparameterValue]) -> dict[str, Value]:
    """Messages by name as values."""
    return {name: from_proto(message) for name, message in messages.items()}
