from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from contract.spaces import space_tables
from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_from_proto, spec_to_proto
from fedstep.v1 import hyperparameters_pb2, study_pb2

_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
_TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
_JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=6,
)
_DURATIONS = st.integers(1, 10**12).map(lambda us: timedelta(microseconds=us))
_VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), _TEXTS
)


@st.composite
def specs(draw: st.DrawFn) -> StudySpec:
    """Any study."""
    plugins = st.dictionaries(_TEXTS.filter(lambda key: key not in ("name", "model_extra")), _JSON, max_size=3)
    content: dict[str, Any] = {
        "name": draw(_NAMES),
        "task": draw(_TEXTS),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "space": draw(space_tables()),
        "hyperparameters": draw(st.dictionaries(st.from_regex(r"[A-Z_]{1,6}", fullmatch=True), _VALUES, max_size=3)),
        "objective": {"metric": draw(_TEXTS), "direction": draw(st.sampled_from(["minimize", "maximize"]))},
        "parallel_trials": draw(st.integers(1, 64)),
        "round": {
            "cohort_size": draw(st.integers(0, 100)),
            "over_selection": draw(st.one_of(st.none(), st.floats(1, 10))),
            "quorum": draw(st.floats(0.01, 1)),
            "deadline": draw(_DURATIONS),
            "min_clients": draw(st.integers(1, 100)),
            "wait_for_clients": draw(st.one_of(st.just(timedelta(0)), _DURATIONS)),
            "late_updates": draw(st.sampled_from(["discount", "drop"])),
        },
        "evaluation": {
            "cohort_size": draw(st.integers(1, 2**32 - 1)),
            "deadline": draw(_DURATIONS),
            "held_out": draw(st.booleans()),
        },
        "budget": {
            "trials": draw(st.integers(1, 99)),
            "rounds_per_trial": draw(st.integers(1, 99)),
            "final_rounds": draw(st.integers(0, 9)),
            "time": draw(st.none() | _DURATIONS),
        },
        "guard": {
            "window": draw(st.integers(1, 9)),
            "factor": draw(st.floats(1.1, 9)),
            "margin": draw(st.floats(0, 9)),
            "max_update_ratio": draw(st.floats(0.1, 9)),
        },
    }
    for name in ("tuner", "selector", "aggregator"):
        content[name] = {**draw(plugins), "name": draw(_TEXTS)}
    return StudySpec.model_validate(content)


@given(specs())
def test_a_study_survives_the_wire(spec: StudySpec) -> None:
    message = study_pb2.StudySpec.FromString(spec_to_proto(spec).SerializeToString())
    again = spec_from_proto(message)
    assert again == spec
    assert list(again.space.parameters) == list(spec.space.parameters)


@given(specs())
def test_json_keeps_a_study(spec: StudySpec) -> None:
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec


def small(**fields: Any) -> study_pb2.StudySpec:
    """A message with the least that a study needs."""
    lr = hyperparameters_pb2.Parameter(name="lr", float_range=hyperparameters_pb2.FloatRange(low=0.1, high=1.0))
    return study_pb2.StudySpec(**{"name": "a", "task": "t", "space": [lr], **fields})


def test_what_is_unset_takes_its_default() -> None:
    expected = StudySpec.model_validate({"name": "a", "task": "t", "space": {"lr": {"low": 0.1, "high": 1.0}}})
    assert spec_from_proto(small()) == expected


def test_a_policy_with_a_few_fields_keeps_the_defaults_of_the_others() -> None:
    spec = spec_from_proto(
        small(
            round=study_pb2.RoundPolicy(cohort_size=7),
            budget=study_pb2.Budget(trials=3),
            evaluation=study_pb2.EvaluationPolicy(held_out=True),
        )
    )
    assert (spec.round.cohort_size, spec.round.over_selection, spec.round.quorum) == (7, None, 0.5)
    assert spec.round.deadline == timedelta(seconds=60)
    assert (spec.budget.trials, spec.budget.rounds_per_trial, spec.budget.time) == (3, 20, None)
    assert spec.evaluation.cohort_size == 20


def test_whole_option_numbers_come_back_whole() -> None:
    plugin = study_pb2.Plugin(name="optuna")
    plugin.options.update({"points": 3, "deep": {"list": [1, 2.5, True, "x"]}})
    options = spec_from_proto(small(tuner=plugin)).tuner.options
    assert options == {"points": 3, "deep": {"list": [1, 2.5, True, "x"]}}
    assert type(options["points"]) is int
    assert [type(value) for value in options["deep"]["list"]] == [int, float, bool, str]


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (study_pb2.StudySpec(name="a", task="t"), "space", "is empty"),
        (small(name=""), "name", "letters"),
        (small(space=[hyperparameters_pb2.Parameter(name="lr")]), "space.lr", "has no range"),
        (small(objective=study_pb2.Objective(direction=7)), "objective.direction", "is 7"),
        (small(hyperparameters={"x": hyperparameters_pb2.HyperparameterValue()}), "hyperparameters.x", "no value"),
        (small(round=study_pb2.RoundPolicy(quorum=3)), "round.quorum", "at most 1"),
        (small(round=study_pb2.RoundPolicy(deadline=Duration(seconds=-3))), "round.deadline", "must not be negative"),
        (small(round=study_pb2.RoundPolicy(deadline=Duration(seconds=2**62))), "round.deadline", "shorter"),
        (small(parallel_trials=99), "parallel_trials", "at most 64"),
        (small(tuner=study_pb2.Plugin(options={"x": 1})), "tuner.name", "must not be empty"),
    ],
)
def test_what_is_wrong_is_refused_by_field(message: study_pb2.StudySpec, field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        spec_from_proto(message)
    assert field in [v.field for v in caught.value.violations]
    assert words in next(v.description for v in caught.value.violations if v.field == field)


def test_a_parameter_named_twice_is_refused() -> None:
    lr = small().space[0]
    with pytest.raises(InvalidInputError, match=r"space\.lr: stands in the space twice"):
        spec_from_proto(small(space=[lr, lr]))
