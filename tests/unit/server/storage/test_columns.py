"""Column types: any value comes back as it was."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import registry, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

from fedstep.server.storage.columns import ExactJson, ExactJsonText, FloatMap, Floats, OptionalFloats, UtcDateTime
from fedstep.server.storage.schema import Base

DIALECT = sqlite.dialect()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "$float"), inner),
    max_leaves=10,
)


def through_json(column: TypeDecorator[Any], value: object) -> object:
    written = json.dumps(column.process_bind_param(value, DIALECT), allow_nan=False)
    return column.process_result_value(json.loads(written), DIALECT)


@given(st.lists(st.floats()))
def test_floats_come_back(values: list[float]) -> None:
    assert repr(through_json(Floats(), values)) == repr(values)


@given(st.lists(st.none() | st.floats()))
def test_optional_floats_come_back(values: list[float | None]) -> None:
    assert repr(through_json(OptionalFloats(), values)) == repr(values)


@given(st.dictionaries(st.text(), st.floats()))
def test_floats_by_name_come_back(values: dict[str, float]) -> None:
    assert repr(through_json(FloatMap(), values)) == repr(values)


@given(json_values)
def test_json_comes_back(value: object) -> None:
    assert repr(through_json(ExactJson(), value)) == repr(value)
    column = ExactJsonText()
    assert repr(column.process_result_value(column.process_bind_param(value, DIALECT), DIALECT)) == repr(value)


def test_json_is_plain_where_it_can_be() -> None:
    assert Floats().process_bind_param((1.5, math.nan, -math.inf), DIALECT) == [1.5, "NaN", "-Infinity"]


@given(st.datetimes(timezones=st.timezones() | st.just(UTC), min_value=datetime(1970, 1, 1)))
def test_times_come_back_in_utc(time: datetime) -> None:
    column = UtcDateTime()
    kept = column.process_result_value(column.process_bind_param(time, DIALECT), DIALECT)
    assert kept is not None
    assert kept.tzinfo is UTC
    assert kept == time.astimezone(UTC)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone"):
        UtcDateTime().process_bind_param(datetime(2030, 1, 1), DIALECT)


@pytest.mark.parametrize("name", ["sqlite", "postgresql", "mysql"])
def test_every_table_can_be_said_in_every_dialect(name: str) -> None:
    dialect = registry.load(name)()
    for table in Base.metadata.sorted_tables:
        assert table.name.startswith("fedstep_")
        statement = str(CreateTable(table).compile(dialect=dialect))
        assert "NULL" in statement
        for index in table.indexes:
            assert index.name is not None
            assert len(index.name) < 64
            CreateIndex(index).compile(dialect=dialect)
