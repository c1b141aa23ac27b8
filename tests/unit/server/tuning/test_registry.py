import warnings
from pathlib import Path
from typing import Any

import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.study_file import read_study
from fedstep.server.tuning.registry import create_tuner, validate_tuner

EXAMPLES = Path(__file__).parents[4] / "examples"
SPACE: dict[str, Any] = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
    "optimizer": {"choices": ["sgd", "adam"]},
}


def study(**tuner: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "a", "task": "digits", "space": SPACE, "tuner": tuner})


@pytest.mark.parametrize("name", ["digits.toml", "mnist_writers.toml"])
def test_the_examples_tuners_are_valid(name: str) -> None:
    validate_tuner(read_study(EXAMPLES / name))


@pytest.mark.parametrize(
    "tuner",
    [
        {"name": "random"},
        {"name": "grid"},
        {"name": "grid", "points": 7},
        {"name": "optuna"},
        {"name": "stepwise"},
        {"name": "stepwise", "sampler": "CmaEsSampler", "sampler_options": {"n_startup_trials": 2}, "use_forks": False},
        {"name": "optuna", "sampler": "RandomSampler", "pruner": "NopPruner"},
        {"name": "optuna", "sampler_options": {"n_startup_trials": 2, "multivariate": False, "seed": 3}},
        {
            "name": "optuna",
            "sampler": "NSGAIISampler",
            "sampler_options": {"crossover": {"name": "SBXCrossover", "eta": 3}},
        },
        {"name": "optuna", "pruner": "PatientPruner", "pruner_options": {"patience": 2}},
        {"name": "optuna", "pruner": "PercentilePruner", "pruner_options": {"percentile": 25}},
        {"name": "optuna", "pruner": "SuccessiveHalvingPruner", "pruner_options": {"min_resource": "auto"}},
        {
            "name": "optuna",
            "sampler": "PartialFixedSampler",
            "sampler_options": {
                "fixed_params": {"optimizer": "sgd"},
                "base_sampler": {"name": "TPESampler", "seed": 1},
            },
        },
    ],
)
def test_what_is_right_is_taken(tuner: dict[str, Any]) -> None:
    validate_tuner(study(**tuner))


@pytest.mark.parametrize("tuner", ["optuna", "stepwise"])
@pytest.mark.parametrize("sampler", ["NSGAIIISampler", "QMCSampler"])
def test_what_optuna_calls_experimental_is_taken_without_a_warning(tuner: str, sampler: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        validate_tuner(study(name=tuner, sampler=sampler))


@pytest.mark.parametrize(
    ("tuner", "field", "words"),
    [
        ({"name": "optna"}, "tuner.name", "did you mean `optuna`?"),
        ({"name": "hyperopt"}, "tuner.name", "known are `random`, `grid`, `optuna`, `stepwise`, "),
        ({"name": "random", "points": 3}, "tuner.points", "unknown key `points`"),
        ({"name": "grid", "point": 3}, "tuner.point", "did you mean `points`?"),
        ({"name": "grid", "points": 0}, "tuner.points", "at least 1"),
        ({"name": "grid", "points": "3"}, "tuner.points", "whole number"),
        ({"name": "optuna", "smapler": "TPESampler"}, "tuner.smapler", "did you mean `sampler`?"),
        ({"name": "optuna", "sampler": "TPESamper"}, "tuner.sampler", "did you mean `TPESampler`?"),
        ({"name": "optuna", "sampler": "tpe"}, "tuner.sampler", "did you mean `TPESampler`?"),
        ({"name": "optuna", "sampler": "BaseSampler"}, "tuner.sampler", "Optuna has no sampler"),
        ({"name": "optuna", "sampler": "MedianPruner"}, "tuner.sampler", "Optuna has no sampler"),
        ({"name": "optuna", "sampler": 3}, "tuner.sampler", "text in quotes"),
        ({"name": "optuna", "sampler_options": 3}, "tuner.sampler_options", "must be a table"),
        ({"name": "optuna", "pruner": "median"}, "tuner.pruner", "did you mean `MedianPruner`?"),
        (
            {"name": "optuna", "sampler_options": {"n_startup_trails": 3}},
            "tuner.sampler_options.n_startup_trails",
            "`TPESampler` has no option `n_startup_trails`: did you mean `n_startup_trials`?",
        ),
        (
            {"name": "optuna", "sampler_options": {"n_startup_trials": "3"}},
            "tuner.sampler_options.n_startup_trials",
            "whole",
        ),
        (
            {"name": "optuna", "sampler_options": {"n_startup_trials": True}},
            "tuner.sampler_options.n_startup_trials",
            "whole",
        ),
        (
            {"name": "optuna", "sampler_options": {"multivariate": 1}},
            "tuner.sampler_options.multivariate",
            "true or false",
        ),
        ({"name": "optuna", "sampler_options": {"gamma": 3}}, "tuner.sampler_options.gamma", "Python object"),
        ({"name": "optuna", "sampler_options": {"seed": -1}}, "tuner.sampler_options.seed", "at least 0"),
        (
            {"name": "optuna", "pruner": "NopPruner", "pruner_options": {"x": 1}},
            "tuner.pruner_options.x",
            "no option `x`",
        ),
        ({"name": "optuna", "pruner": "PercentilePruner"}, "tuner.pruner_options.percentile", "is missing"),
        (
            {"name": "optuna", "pruner": "PercentilePruner", "pruner_options": {"percentile": 101}},
            "tuner.pruner_options",
            "`PercentilePruner` refuses them: Percentile must be between 0 and 100",
        ),
        (
            {
                "name": "optuna",
                "pruner": "PatientPruner",
                "pruner_options": {"patience": 1, "wrapped_pruner": "NopPruner"},
            },
            "tuner.pruner_options.wrapped_pruner",
            "must be a table such as { name =",
        ),
        (
            {
                "name": "optuna",
                "pruner": "PatientPruner",
                "pruner_options": {"patience": 1, "wrapped_pruner": {"name": "Nop"}},
            },
            "tuner.pruner_options.wrapped_pruner.name",
            "did you mean `NopPruner`?",
        ),
        (
            {
                "name": "optuna",
                "pruner": "PatientPruner",
                "pruner_options": {"patience": 1, "wrapped_pruner": {"name": "MedianPruner", "warmup": 1}},
            },
            "tuner.pruner_options.wrapped_pruner.warmup",
            "`MedianPruner` has no option `warmup`",
        ),
        ({"name": "optuna", "sampler": "BruteForceSampler"}, "space.lr", "give it a step"),
        (
            {"name": "optuna", "sampler": "GridSampler", "sampler_options": {"search_space": {"lr": [0.1, 0.2]}}},
            "tuner.sampler_options.search_space",
            "does not name `optimizer`",
        ),
        (
            {
                "name": "optuna",
                "sampler": "GridSampler",
                "sampler_options": {"search_space": {"lr": [0.1, 2.0], "optimizer": ["sgd"]}},
            },
            "tuner.sampler_options.search_space.lr",
            "is 2.0: `lr` is from 0.001 to 1.",
        ),
        (
            {
                "name": "optuna",
                "sampler": "PartialFixedSampler",
                "sampler_options": {"fixed_params": {"optimiser": "sgd"}, "base_sampler": {"name": "RandomSampler"}},
            },
            "tuner.sampler_options.fixed_params.optimiser",
            "did you mean `optimizer`?",
        ),
        (
            {
                "name": "optuna",
                "sampler": "PartialFixedSampler",
                "sampler_options": {"fixed_params": {}, "base_sampler": {"name": "BruteForceSampler"}},
            },
            "space.lr",
            "give it a step",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_stored(
    tmp_path: Path, tuner: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        validate_tuner(study(**tuner))
    assert [v.field for v in caught.value.violations] == [field]
    assert words in caught.value.violations[0].description
    with pytest.raises(InvalidInputError):
        create_tuner(study(**tuner), f"sqlite:///{tmp_path / 'a.sqlite'}")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_sampler_and_pruner_are_said_together() -> None:
    with pytest.raises(InvalidInputError) as caught:
        validate_tuner(study(name="optuna", sampler="TPE", pruner="Median"))
    assert [v.field for v in caught.value.violations] == ["tuner.sampler", "tuner.pruner"]


def test_a_space_without_a_grid_is_refused() -> None:
    space = {"width": {"low": 0.0, "high": 1.0, "step": 1e-7}}
    spec = StudySpec.model_validate({"name": "a", "task": "digits", "space": space, "tuner": {"name": "grid"}})
    with pytest.raises(InvalidInputError, match=r"space\.width: it has 10000001 values"):
        validate_tuner(spec)
