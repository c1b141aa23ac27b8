import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.spaces import spaces
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Value
from fedstep.common.space import CategoricalParameter, FloatParameter, IntParameter, Space
from fedstep.common.standard import Scope
from fedstep.common.validation import violations_of

SPACE = {
    "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "optimizer": {"choices": ["sgd", "adam"]},
    "lr": {"low": 1e-4, "high": 1, "log": True},
    "batch_size": {"choices": [16, 32]},
    "local_epochs": {"low": 1, "high": 4},
}


def faults_of(table: Any) -> dict[str, str]:
    """What is refused in a space, by field."""
    with pytest.raises(ValidationError) as caught:
        Space.model_validate(table)
    return {v.field: v.description for v in violations_of(caught.value, Space)}


def types_fit(space: Space, point: dict[str, Value]) -> bool:
    expected = {"float": float, "int": int}
    return all(
        type(value) is expected[parameter.type]
        if not isinstance(parameter := space[name], CategoricalParameter)
        else any(value == choice and type(value) is type(choice) for choice in parameter.choices)
        for name, value in point.items()
    )


@given(spaces(), st.integers(0, 2**32))
def test_a_sample_is_a_point_with_exact_types(space: Space, seed: int) -> None:
    point = space.sample(np.random.default_rng(seed))
    space.validate_point(point)
    assert types_fit(space, point)


@given(spaces(), st.integers(0, 2**32))
def test_units_lead_back_to_the_point(space: Space, seed: int) -> None:
    point = space.sample(np.random.default_rng(seed))
    units = space.to_unit(point)
    assert all(0 <= unit <= 1 for unit in units.values())
    again = space.from_unit(units)
    assert again.keys() == point.keys()
    for name, value in point.items():
        parameter = space[name]
        if isinstance(parameter, FloatParameter) and parameter.step is None:
            assert again[name] == pytest.approx(value, rel=1e-9, abs=1e-9 * (parameter.high - parameter.low))
        else:
            assert again[name] == value


@given(spaces(), st.floats(0, 1))
def test_every_unit_is_a_legal_value(space: Space, unit: float) -> None:
    for parameter in space.parameters.values():
        assert parameter.normal(parameter.from_unit(unit)) is not None


@given(spaces(most=4), st.integers(1, 3))
def test_a_grid_holds_every_point_once(space: Space, points: int) -> None:
    try:
        grid = space.grid(points)
    except InvalidInputError:  # drawn with too many conditions, which has a test of its own
        reject()
    assume(grid.size <= 300)
    found = [grid.point(index) for index in range(grid.size)]
    for point in found:
        space.validate_point(point)
        assert types_fit(space, point)
    assert len({tuple(sorted(point.items())) for point in found}) == grid.size
    # All there are: each level of each parameter beside each choice of the others.
    for name, parameter in space.parameters.items():
        if not parameter.when:
            assert {point[name] for point in found} >= set(parameter.levels(points))


@given(spaces())
def test_json_keeps_a_space(space: Space) -> None:
    again = Space.model_validate_json(space.model_dump_json())
    assert again == space
    assert list(again.parameters) == list(space.parameters)


def test_parents_come_first() -> None:
    assert list(Space.model_validate(SPACE).ordered) == ["optimizer", "momentum", "lr", "batch_size", "local_epochs"]
    assert list(Space.model_validate(SPACE).parameters) == list(SPACE)


def test_types_are_said_by_the_table_or_the_standard_name() -> None:
    space = Space.model_validate({**SPACE, "depth": {"low": 1, "high": 3}, "width": {"low": 1, "high": 2.5}})
    kinds = {name: parameter.type for name, parameter in space.parameters.items()}
    assert kinds["lr"] == "float"
    assert kinds["optimizer"] == kinds["batch_size"] == "categorical"
    assert kinds["local_epochs"] == kinds["depth"] == "int"
    assert kinds["width"] == "float"


def test_parameters_may_be_given_as_objects() -> None:
    space = Space({"lr": FloatParameter(low=0.1, high=1), "server_lr": FloatParameter(low=0.1, high=1)})
    assert space["lr"].scope is Scope.CLIENT
    assert space["server_lr"].scope is Scope.SERVER
    assert Space({"depth": IntParameter(low=1, high=2, scope=Scope.ROUND)})["depth"].scope is Scope.ROUND


def test_scope_is_the_standard_ones_or_the_clients() -> None:
    table = {"server_lr": {"low": 0.1, "high": 1}, "cohort_size": {"low": 1, "high": 9}, "width": {"low": 1, "high": 9}}
    scopes = {name: str(parameter.scope) for name, parameter in Space.model_validate(table).parameters.items()}
    assert scopes == {"server_lr": "server", "cohort_size": "round", "width": "client"}


def test_a_child_exists_only_with_its_parent() -> None:
    space = Space.model_validate(
        {
            "a": {"choices": [True, False]},
            "b": {"low": 1, "high": 3, "when": {"a": True}},
            "c": {"low": 0.0, "high": 1.0, "when": {"b": [2, 3], "a": [True, False]}},
        }
    )
    assert space.contains({"a": False})
    assert space.contains({"a": True, "b": 1})
    assert space.contains({"a": True, "b": 2, "c": 0.5})
    assert not space.contains({"a": True, "b": 1, "c": 0.5})
    assert not space.contains({"a": False, "b": 2, "c": 0.5})
    assert not space.contains({"a": True, "b": 3})


def test_a_grid_counts_children_only_where_they_exist() -> None:
    grid = Space.model_validate(SPACE).grid(3)
    assert grid.size == (3 + 1) * 3 * 2 * 3
    assert grid.point(0) == {"optimizer": "sgd", "momentum": 0.0, "lr": 1e-4, "batch_size": 16, "local_epochs": 1}
    assert grid.point(grid.size - 1) == {"optimizer": "adam", "lr": 1.0, "batch_size": 32, "local_epochs": 4}
    assert sorted({grid.point(index)["lr"] for index in range(grid.size)}) == [1e-4, pytest.approx(1e-2), 1.0]
    with pytest.raises(IndexError, match="72"):
        grid.point(grid.size)


def test_a_grid_of_an_int_parent_has_every_value_that_a_condition_names() -> None:
    space = Space.model_validate(
        {"layers": {"low": 1, "high": 100}, "width": {"low": 1, "high": 2, "when": {"layers": 37}}}
    )
    points = [space.grid(2).point(index) for index in range(space.grid(2).size)]
    assert {"layers": 37, "width": 2} in points
    assert {"layers": 100} in points


def test_a_grid_of_many_choices_is_counted_not_listed() -> None:
    space = Space.model_validate({f"p{i}": {"choices": list(range(10))} for i in range(50)})
    grid = space.grid(1)
    assert grid.size == 10**50
    assert grid.point(10**50 - 1) == {f"p{i}": 9 for i in range(50)}


def test_a_grid_of_a_range_with_endless_steps_is_refused() -> None:
    space = Space.model_validate({"width": {"low": 0.0, "high": 1.0, "step": 1e-7}})
    with pytest.raises(InvalidInputError, match="too many") as caught:
        space.grid(3)
    assert caught.value.violations[0].field == "space.width"


def test_steps_are_decimal() -> None:
    levels = FloatParameter(low=0.1, high=0.75, step=0.1).levels(2)
    assert levels == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def test_log_scales_share_the_decades_evenly() -> None:
    parameter = FloatParameter(low=1e-4, high=1.0, log=True)
    assert parameter.from_unit(0.5) == pytest.approx(1e-2)
    assert parameter.from_unit(0.0) == 1e-4
    assert parameter.from_unit(1.0) == 1.0
    whole = IntParameter(low=1, high=1000, log=True)
    assert [whole.from_unit(unit) for unit in (0.0, 0.5, 1.0)] == [1, round(math.sqrt(0.5 * 1000.5)), 1000]


def test_an_int_range_gives_every_value_its_share() -> None:
    parameter = IntParameter(low=1, high=4)
    assert [parameter.from_unit(unit) for unit in (0.0, 0.24, 0.26, 0.74, 0.76, 1.0)] == [1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"optimizer": "adam", "lr": 0.1, "batch_size": 16}, "local_epochs", "is missing"),
        ({"optimizer": "adam", "lr": 0.1, "batch_size": 16, "local_epochs": 2, "momentum": 0.5}, "momentum", "drop it"),
        (
            {"optimizer": "adam", "lr": 0.1, "batch_size": 16, "local_epochs": 2, "momentun": 0.5},
            "momentun",
            "momentum",
        ),
        ({"optimizer": "adam", "lr": 2.0, "batch_size": 16, "local_epochs": 2}, "lr", "is 2: it must be from 0.0001"),
        ({"optimizer": "adam", "lr": 1, "batch_size": 16, "local_epochs": 2}, "lr", "float"),
        ({"optimizer": "adam", "lr": 0.1, "batch_size": 16, "local_epochs": True}, "local_epochs", "is true"),
        ({"optimizer": "adam", "lr": 0.1, "batch_size": 16.0, "local_epochs": 2}, "batch_size", "one of [16, 32]"),
        ({"optimizer": "adma", "lr": 0.1, "batch_size": 16, "local_epochs": 2}, "optimizer", '"adma"'),
        ({"optimizer": "adam", "lr": math.nan, "batch_size": 16, "local_epochs": 2}, "lr", "is nan"),
    ],
)
def test_what_is_not_a_point_is_refused(values: dict[str, Value], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Space.model_validate(SPACE).validate_point(values)
    assert [v.field for v in caught.value.violations] == [field]
    assert words in caught.value.violations[0].description


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        ({"lr": {"low": 2, "high": 1}}, "lr.low", "is 2, above high = 1: swap them."),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "lr.low", "must be greater than 0"),
        ({"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "lr.step", "log = true"),
        ({"lr": {"low": 0.1, "high": 1, "step": 0}}, "lr.step", "greater than 0"),
        ({"lr": {"low": 0.1, "high": 1, "step": 2}}, "lr.step", "wider than the range"),
        ({"width": {"low": 0.0, "high": 1e300, "step": 1e-9}}, "width.step", "too fine"),
        ({"lr": {"low": "0.1", "high": 1}}, "lr.low", 'is "0.1": it must be a number, without quotes.'),
        ({"lr": {"low": True, "high": 1}}, "lr.low", "is true: it must be a number"),
        ({"lr": {"low": 0.1, "high": math.inf}}, "lr.high", "is inf: it must be a finite number."),
        ({"lr": {"low": 0.1, "high": 10**400}}, "lr.high", "finite"),
        ({"lr": {"low": 0.1, "high": 1, "log": 1}}, "lr.log", "true or false"),
        ({"lr": {"low": -0.1, "high": 1}}, "lr.low", "must be at least 0"),
        ({"momentum": {"low": 0.1, "high": 1.5}}, "momentum.high", "must be at most 1"),
        ({"lr": {"low": 0.1}}, "lr.high", "is missing"),
        ({"lr": {"low": 0.1, "high": 1, "lgo": True}}, "lr.lgo", "did you mean `log`?"),
        ({"lr": {"low": 0.1, "hihg": 1}}, "lr.hihg", "did you mean `high`?"),
        ({"lr": {"type": "flaot", "low": 0.1, "high": 1}}, "lr.type", "did you mean `float`?"),
        ({"lr": {"low": 1, "high": 2, "scope": "server"}}, "lr.scope", 'the scope of `lr` is "client"'),
        ({"width": {"low": 1, "high": 2, "scope": "clinet"}}, "width.scope", "did you mean `client`?"),
        ({"lr": {"type": "int", "low": 1, "high": 2}}, "lr.type", '`lr` takes type = "float".'),
        ({"batch_size": {"low": 0, "high": 2}}, "batch_size.low", "must be at least 1"),
        ({"batch_size": {"low": 1.0, "high": 2}}, "batch_size.low", "write 1"),
        ({"batch_size": {"low": 1.5, "high": 2}}, "batch_size.low", "whole number"),
        ({"batch_size": {"low": 1, "high": 2**63}}, "batch_size.high", "64 bits"),
        ({"batch_size": {"choices": [8, 0]}}, "batch_size.choices", "is 0: `batch_size` must be at least 1."),
        ({"batch_size": {"choices": [8, 16.5]}}, "batch_size.choices", "whole number"),
        ({"optimizer": {"low": 1, "high": 2}}, "optimizer.type", "choices"),
        ({"optimizer": {"choices": ["sgd", "adm"]}}, "optimizer.choices", "did you mean `adam`?"),
        ({"optimizer": {"choices": []}}, "optimizer.choices", "must not be empty"),
        ({"optimizer": {"choices": ["sgd", "sgd"]}}, "optimizer.choices", '"sgd" stands in it twice'),
        ({"width": {"choices": [1, "a"]}}, "width.choices", "one type"),
        ({"width": {"choices": [1, True]}}, "width.choices", "one type"),
        ({"width": {"choices": [[1], [2]]}}, "width.choices", "numbers, texts"),
        ({"width": {"choices": [1.0, math.nan]}}, "width.choices", "finite"),
        ({"width": {"choices": "abc"}}, "width.choices", "must be a list"),
        ({"lr": 0.1}, "lr", "belongs into [hyperparameters]"),
        ({"lr": [0.1, 1.0]}, "lr", "write { choices = […] }"),
        ({}, "", "is empty"),
        ({"a b": {"low": 0, "high": 1}}, "a b", "rename it"),
        ({"a": {"low": 0, "high": 1, "when": {"a": 1}}}, "a.when.a", "no other parameter `a`"),
        ({"a": {"low": 0, "high": 1, "when": {"b": 1}}}, "a.when.b", "no other parameter `b`"),
        ({"a": {"low": 0, "high": 1, "when": 3}}, "a.when", "must be a table"),
        (
            {"a": {"low": 0, "high": 1, "when": {"optimizr": "sgd"}}, "optimizer": {"choices": ["sgd", "adam"]}},
            "a.when.optimizr",
            "did you mean `optimizer`?",
        ),
        (
            {"a": {"low": 0, "high": 1, "when": {"optimizer": "adamw"}}, "optimizer": {"choices": ["sgd", "adam"]}},
            "a.when.optimizer",
            '"adamw" is not a value of `optimizer`: it is one of ["sgd", "adam"].',
        ),
        (
            {"a": {"low": 0, "high": 1, "when": {"lr": 0.1}}, "lr": {"low": 0.1, "high": 1}},
            "a.when.lr",
            "`lr` is a float",
        ),
        (
            {
                "a": {"choices": [1, 2], "when": {"b": 1}},
                "b": {"choices": [1, 2], "when": {"a": 1}},
            },
            "a.when",
            "in a circle",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(table: Any, field: str, words: str) -> None:
    faults = faults_of(table)
    assert list(faults) == [field]
    assert words in faults[field]


def test_every_mistake_is_reported() -> None:
    faults = faults_of({"lr": {"low": 2, "high": 1}, "momentum": {"low": 0, "high": "x", "lgo": 1}, "a": 3})
    assert set(faults) == {"lr.low", "momentum.high", "momentum.lgo", "a"}


def test_conditions_take_the_type_of_the_parent() -> None:
    space = Space.model_validate(
        {"momentum": {"choices": [0, 0.9]}, "nesterov": {"choices": [True, False], "when": {"momentum": 0}}}
    )
    assert space["nesterov"].when == {"momentum": (0.0,)}
    assert type(space["nesterov"].when["momentum"][0]) is float
    assert space["momentum"].levels(1) == (0.0, 0.9)


def test_a_space_cannot_be_changed() -> None:
    space = Space.model_validate(SPACE)
    with pytest.raises(ValidationError):
        space["lr"].low = 3.0  # type: ignore[union-attr,misc]
