from datetime import timedelta
from typing import Any

import pytest

from fedstep.common.spec import Plugin, StudySpec
from fedstep.server.report.progress import by_trials, plan_text, progress_text, rounds_of_budget
from fedstep.server.tuning.ray_names import SCHEDULERS
from fedstep.server.tuning.registry import create_tuner


def spec(tuner: str, cohort: int = 10, **budget: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "s",
            "task": "digits",
            "space": {"lr": {"low": 0.01, "high": 1.0, "log": True}},
            "tuner": {"name": tuner},
            "selector": {"name": "random"},
            "round": {"cohort_size": cohort},
            "budget": {"trials": 8, "rounds_per_trial": 5, **budget},
        }
    )


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_under_ray_it_depends_on_the_scheduler(scheduler: str) -> None:
    study = spec("ray").model_copy(update={"tuner": Plugin(name="ray", scheduler=scheduler)})
    assert by_trials(study) is create_tuner(study, "").per_trial


@pytest.mark.parametrize(
    "name", ["random", "grid", "optuna", "stepwise", "fedex", "population", "fixed", "schedule", "outside"]
)
def test_trials_are_counted_where_the_tuner_trains_whole_ones(name: str) -> None:
    options = {"stages": [{"rounds": 40}]} if name == "schedule" else {}
    budget = {"rounds": 40} if name == "outside" else {}
    study = spec(name, **budget).model_copy(update={"tuner": Plugin(name=name, **options)})
    tuner = create_tuner(study, "sqlite://")
    assert by_trials(study) is tuner.per_trial
    tuner.close()


@pytest.mark.parametrize(
    ("tuner", "budget", "plan", "progress"),
    [
        ("random", {}, "8 trials of 5 rounds", "3 of 8 trials, 12 rounds"),
        ("random", {"rounds": 30}, "a budget of 30 rounds", "12 of 30 rounds, 3 arms"),
        ("stepwise", {}, "a budget of 40 rounds", "12 of 40 rounds, 3 arms"),
        ("stepwise", {"client_rounds": 6000}, "a budget of 6,000 client-rounds", "12 of about 600 rounds, 3 arms"),
        ("stepwise", {"time": timedelta(minutes=2)}, "a budget of 120 s", "12 rounds, 3 arms"),
        ("fedex", {"payload_bytes": 10**6}, "a budget of 1,000,000 bytes", "12 rounds, 3 arms"),
    ],
)
def test_how_far_a_study_is_is_said_in_what_its_budget_counts(
    tuner: str, budget: dict[str, Any], plan: str, progress: str
) -> None:
    assert plan_text(spec(tuner, **budget)) == plan
    assert progress_text(spec(tuner, **budget), trials=3, rounds=12) == progress


def test_client_rounds_of_a_cohort_of_everybody_are_no_number_of_rounds() -> None:
    assert rounds_of_budget(spec("stepwise", cohort=0, client_rounds=100)) is None
