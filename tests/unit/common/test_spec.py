from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from fedstep.common.errors import InvalidInputError
from fedstep.common.names import check_names
from fedstep.common.spec import StudySpec
from fedstep.common.validation import violations_of

STUDY: dict[str, Any] = {"name": "a", "task": "digits", "space": {"lr": {"low": 0.1, "high": 1.0}}}


def faults_of(**changes: Any) -> dict[str, str]:
    """What is refused in a study, by field."""
    with pytest.raises(ValidationError) as caught:
        StudySpec.model_validate(STUDY | changes)
    return {v.field: v.description for v in violations_of(caught.value, StudySpec)}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), (" 3 s ", 3), (7, 7), (0.5, 0.5), ("0.1s", 0.1)],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    spec = StudySpec.model_validate(STUDY | {"round": {"deadline": text}})
    assert spec.round.deadline == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["soon", "3 fortnights", "", "-3s", "nan s", True, [3], {"s": 3}, -1, "0s", 0])
def test_what_is_no_duration_is_refused(text: object) -> None:
    assert "must" in faults_of(round={"deadline": text})["round.deadline"]


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1e300, "9999999999h"])
def test_endless_durations_are_refused(number: object) -> None:
    assert "it must be" in faults_of(budget={"time": number})["budget.time"]


@pytest.mark.parametrize("seconds", [0.000001, 100_000.5, 86_400 * 9_999, 0.25])
def test_json_keeps_durations(seconds: float) -> None:
    spec = StudySpec.model_validate(STUDY | {"round": {"deadline": seconds}})
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": "a b"}, "name", 'is "a b": it may hold letters'),
        ({"name": 3}, "name", "text in quotes"),
        ({"task": ""}, "task", "must not be empty"),
        ({"seed": -1}, "seed", "is -1: it must be at least 0."),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"parallel_trials": "2"}, "parallel_trials", 'is "2": it must be a whole number.'),
        ({"parallel_trials": True}, "parallel_trials", "whole number"),
        ({"parallel_trials": 65}, "parallel_trials", "at most 64"),
        ({"budget": {"trials": 0}}, "budget.trials", "at least 1"),
        ({"budget": {"trials": 2**32}}, "budget.trials", "less than 4294967296"),
        ({"budget": {"tirals": 3}}, "budget.tirals", "did you mean `trials`?"),
        ({"trials": 3}, "trials", "it belongs into the table `[budget]`."),
        ({"budgte": {"trials": 3}}, "budgte", "did you mean `budget`?"),
        ({"budget": 3}, "budget", "is 3: it must be a table."),
        ({"objective": {"direction": "maximise"}}, "objective.direction", "did you mean `maximize`?"),
        ({"round": {"quorum": 0}}, "round.quorum", "greater than 0"),
        ({"round": {"over_selection": float("nan")}}, "round.over_selection", "is nan"),
        ({"evaluation": {"held_out": 1}}, "evaluation.held_out", "true or false"),
        ({"tuner": "optuna"}, "tuner", "must be a table"),
        ({"tuner": {}}, "tuner.name", "is missing: add `name = …`."),
        ({"tuner": {"name": "x", "y": {"z": [timedelta(1)]}}}, "tuner.y.z.0", "an option is a number"),
        ({"space": 3}, "space", "must be a table of parameters"),
        ({"hyperparameters": {"momentum": 2}}, "hyperparameters.momentum", "at most 1"),
        ({"hyperparameters": {"optimizer": "sdg"}}, "hyperparameters.optimizer", "did you mean `sgd`?"),
        ({"hyperparameters": {"batch_size": 8.0}}, "hyperparameters.batch_size", "whole number"),
        ({"hyperparameters": {"momentum": {"low": 0}}}, "hyperparameters.momentum", "write it into [space]"),
        ({"hyperparameters": {"width": float("nan")}}, "hyperparameters.width", "finite"),
        ({"hyperparameters": {"lr": 0.1}}, "hyperparameters.lr", "either fixed or tuned"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(changes: dict[str, Any], field: str, words: str) -> None:
    faults = faults_of(**changes)
    assert list(faults) == [field]
    assert words in faults[field]


def test_a_missing_table_is_named_as_one() -> None:
    with pytest.raises(ValidationError) as caught:
        StudySpec.model_validate({"name": "a", "task": "b"})
    assert violations_of(caught.value, StudySpec)[0].description == "is missing: add a table `[space]`."


def test_fixed_whole_numbers_become_real_where_the_standard_one_is() -> None:
    spec = StudySpec.model_validate(STUDY | {"hyperparameters": {"momentum": 0, "batch_size": 8, "width": 3}})
    assert {name: type(value) for name, value in spec.hyperparameters.items()} == {
        "momentum": float,
        "batch_size": int,
        "width": int,
    }


TASK = {"width": 32, "dropout": 0.1, "activation": "relu"}


def test_names_of_the_task_and_standard_ones_are_known() -> None:
    space = {"lr": {"low": 0.1, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.5}, "width": {"choices": [8, 16]}}
    spec = StudySpec.model_validate(STUDY | {"space": space, "hyperparameters": {"activation": "tanh", "momentum": 0}})
    check_names(spec, TASK, "digits")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"space": {"momentun": {"low": 0.0, "high": 0.9}}}, "space.momentun", "did you mean `momentum`?"),
        ({"space": {"widht": {"low": 1, "high": 9}}}, "space.widht", "did you mean `width`?"),
        ({"space": {"qqq": {"low": 1, "high": 9}}}, "space.qqq", "known are `lr`, "),
        ({"hyperparameters": {"batchsize": 8}}, "hyperparameters.batchsize", "did you mean `batch_size`?"),
        ({"hyperparameters": {"width": 0.5}}, "hyperparameters.width", "is 0.5: it must be a whole number."),
        ({"hyperparameters": {"activation": True}}, "hyperparameters.activation", "text in quotes"),
        ({"space": {"width": {"low": 1.0, "high": 9.0}}}, "space.width", "default is 32"),
        ({"space": {"activation": {"choices": [1, 2]}}}, "space.activation", "text in quotes"),
    ],
)
def test_unknown_names_are_refused(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_names(StudySpec.model_validate(STUDY | changes), TASK, "digits")
    assert [v.field for v in caught.value.violations] == [field]
    assert words in caught.value.violations[0].description
    assert field in caught.value.message


@pytest.mark.parametrize(
    ("selector", "said", "asked"),
    [("deadline", None, 1.3), ("oort", None, 1.3), ("random", None, 1.0), ("oort", 1.0, 1.0)],
)
def test_how_many_are_asked_is_the_selectors_unless_the_study_says_it(
    selector: str, said: float | None, asked: float
) -> None:
    tables = {"selector": {"name": selector}, "round": {} if said is None else {"over_selection": said}}
    study = StudySpec.model_validate(STUDY | tables)
    assert study.over_selection == asked
