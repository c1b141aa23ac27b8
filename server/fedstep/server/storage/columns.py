"""Column types that give back exactly what was put in, on every database.

JSON has no NaN and no infinity, and SQLite and MySQL keep no NaN in a number column. Here they are the strings
"NaN", "Infinity" and "-Infinity", which PostgreSQL casts to double precision as they are.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

NONFINITE = ("NaN", "Infinity", "-Infinity")
"""How a float that is no finite number is written."""

_TAG = "$float"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as UTC without a zone, to the microsecond."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """MySQL keeps whole seconds unless told otherwise."""
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name in ("mysql", "mariadb") else DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC.

        Raises:
            ValueError: The time has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no zone: give an aware one, such as datetime.now(UTC)")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Sentence(TypeDecorator[str]):
    """Text of any length. PostgreSQL refuses NUL in it, and clients send what they like: NUL becomes U+FFFD."""

    impl = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Without NUL."""
        return None if value is None else value.replace("\0", "\ufffd")


class Floats(TypeDecorator[Sequence[float]]):
    """A JSON array of floats; any float comes back as it was."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[float] | None, dialect: Dialect) -> list[float | str]:
        """To what JSON can say."""
        numbers = list(map(float, value if value is not None else ()))  # numpy's scalars are not JSON
        if all(map(math.isfinite, numbers)):  # nearly always, and there may be 100,000
            return list(numbers)
        return [_plain(number) for number in numbers]

    def process_result_value(self, value: list[float | str] | None, dialect: Dialect) -> list[float]:
        """Back to floats."""
        return list(map(float, value or ()))


class OptionalFloats(TypeDecorator[Sequence[float | None]]):
    """A JSON array of floats and nulls; any float and None come back as they were."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[float | None] | None, dialect: Dialect) -> list[float | str | None]:
        """To what JSON can say."""
        return [None if number is None else _plain(number) for number in value or ()]

    def process_result_value(self, value: list[float | str | None] | None, dialect: Dialect) -> list[float | None]:
        """Back to floats."""
        return [None if number is None else float(number) for number in value or ()]


class FloatMap(TypeDecorator[dict[str, float]]):
    """A JSON object of floats by name; any float comes back as it was."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, float] | None, dialect: Dialect) -> dict[str, float | str]:
        """To what JSON can say."""
        return {name: _plain(number) for name, number in (value or {}).items()}

    def process_result_value(self, value: dict[str, Any] | None, dialect: Dialect) -> dict[str, float]:
        """Back to floats."""
        return {name: float(number) for name, number in (value or {}).items()}


class ExactJson(TypeDecorator[Any]):
    """Any JSON value. A float that JSON lacks becomes `{"$float": "NaN"}`, so that no string is mistaken for one."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """To what JSON can say."""
        return _tag(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Back to floats."""
        return _untag(value)


class ExactJsonText(TypeDecorator[Any]):
    """As ExactJson, and objects keep the order of their keys, which MySQL's JSON does not."""

    impl = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """To JSON."""
        return json.dumps(_tag(value), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Back from JSON."""
        return None if value is None else _untag(json.loads(value))


def _plain(number: float) -> float | str:
    number = float(number)
    return number if math.isfinite(number) else _name(number)


def _name(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _tag(value: Any) -> Any:
    match value:
        case float():
            return float(value) if math.isfinite(value) else {_TAG: _name(value)}
        case Mapping():
            return {key: _tag(item) for key, item in value.items()}
        case list() | tuple():
            return [_tag(item) for item in value]
        case _:
            return value


def _untag(value: Any) -> Any:
    match value:
        case dict() if len(value) == 1 and value.get(_TAG) in NONFINITE:
            return float(value[_TAG])
        case dict():
            return {key: _untag(item) for key, item in value.items()}
        case list():
            return [_untag(item) for item in value]
        case _:
            return value
