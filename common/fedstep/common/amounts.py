"""Arithmetic on dataclasses whose fields are amounts."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def fieldwise(operate: Callable[[Any, Any], Any], one: T, other: T) -> T:
    """One dataclass of two, each field by the same operation."""
    return replace(
        one, **{field.name: operate(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)}
    )
