import re
from typing import Any

import pytest
from pydantic import ValidationError
from unit.server.tuning.learning_curves import Federation

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.validation import sentences, violations_of
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.fixed import FixedOptions, FixedTuner, ScheduleOptions, ScheduleTuner, cosine

SPACE = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "optimizer": {"choices": ["sgd", "adam"]},
    "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
}


def study(**changes: Any) -> StudySpec:
    content: dict[str, Any] = {
        "name": "a",
        "task": "digits",
        "space": SPACE,
        "round": {"cohort_size": 4},
        "budget": {"rounds": 50},
    }
    return StudySpec.model_validate(content | changes)


def fixed(spec: StudySpec, task: dict[str, Any] | None = None, **options: Any) -> Federation:
    return Federation(FixedTuner(spec, FixedOptions.model_validate(options), task or {}), spec)


def scheduled(spec: StudySpec, stages: list[Any], **options: Any) -> Federation:
    return Federation(ScheduleTuner(spec, ScheduleOptions.model_validate({"stages": stages, **options}), {}), spec)


def test_the_defaults_train_for_the_whole_budget() -> None:
    run = fixed(study(), {"lr": 0.02}).run()
    assert len(run.arms) == 1
    assert run.arms[0].hyperparameters == {"lr": 0.02, "optimizer": "sgd", "momentum": 0.0}
    assert run.arms[0].rounds == 50
    assert run.tuner.delivers() == 0


def test_values_given_stand_over_the_defaults() -> None:
    run = fixed(study(), hyperparameters={"lr": 1, "optimizer": "adam", "local_epochs": 2}).run()
    # With adam there is no momentum; a whole number becomes a real one; what is not in the space comes along.
    assert run.arms[0].hyperparameters == {"lr": 1.0, "optimizer": "adam", "local_epochs": 2}
    assert isinstance(run.arms[0].hyperparameters["lr"], float)


def test_a_parameter_without_a_default_is_in_the_middle() -> None:
    run = fixed(study(space={"dropout": {"low": 0.0, "high": 0.5}})).run()
    assert run.arms[0].hyperparameters == {"dropout": 0.25}


def test_truth_values_and_whole_numbers_keep_their_types() -> None:
    options = FixedOptions.model_validate({"hyperparameters": {"a": True, "b": 2, "c": 0.5, "d": "x"}})
    assert [type(value) for value in options.hyperparameters.values()] == [bool, int, float, str]


def test_the_late_cosine() -> None:
    run = fixed(study(), hyperparameters={"lr": 0.1}, cosine=True).run()
    arms = list(run.arms.values())
    assert (arms[0].rounds, arms[0].hyperparameters["lr"]) == (30, 0.1)
    assert sum(arm.rounds or 0 for arm in arms) == 50
    lrs = [float(arm.hyperparameters["lr"]) for arm in arms]
    assert lrs == sorted(lrs, reverse=True)
    assert lrs[-1] == pytest.approx(0.01)
    assert all(1 <= (arm.rounds or 0) <= 4 for arm in arms[1:])
    assert [arm.parents for arm in arms[1:]] == [(arm.number - 1,) for arm in arms[1:]]
    assert run.delivered.rounds == 50


def test_the_cosine_is_half_way_down_in_the_middle() -> None:
    assert cosine(1.0, 0.0) == pytest.approx(1.0)
    assert cosine(1.0, 0.5) == pytest.approx(0.55)
    assert cosine(1.0, 1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_a_short_budget_has_a_cosine_too(rounds: int) -> None:
    run = fixed(study(budget={"rounds": rounds}), cosine=True).run()
    assert run.spent.rounds == rounds


def test_the_averaged_model_is_delivered_where_it_measures_better() -> None:
    run = fixed(study(), average=0.8).run()
    assert run.arms[0].average == 0.8
    assert (run.arms[1].rounds, run.arms[1].of_average, run.arms[1].parents) == (0, True, (0,))
    # Its loss falls all the way, so the average lags behind.
    assert run.tuner.delivers() == 0
    assert run.notes[-1].details["averaged"] > run.notes[-1].details["last"]
    rising = fixed(study(objective={"metric": "error", "direction": "maximize"}), average=0.8).run()
    assert rising.tuner.delivers() == 1


def test_a_schedule_is_trained_from_scratch() -> None:
    stages = [{"hyperparameters": {"lr": 0.1}, "rounds": 20}, {"hyperparameters": {"lr": 0.05}, "rounds": 15}]
    run = scheduled(study(), stages).run()
    assert [(arm.hyperparameters["lr"], arm.rounds, arm.parents) for arm in run.arms.values()] == [
        (0.1, 20, ()),
        (0.05, 15, (0,)),
    ]
    assert run.delivered.rounds == 35


def test_a_schedule_ends_with_the_budget() -> None:
    stages = [{"hyperparameters": {"lr": 0.1}, "rounds": 40}] * 3
    assert [arm.rounds for arm in scheduled(study(), stages).run().arms.values()] == [40, 10]


def test_a_stage_that_fails_leaves_the_model_before_it() -> None:
    def fails(arm: Arm) -> bool:
        return arm.number == 1

    spec = study()
    stages = [{"hyperparameters": {"lr": 0.1}, "rounds": 10}] * 3
    tuner = ScheduleTuner(spec, ScheduleOptions.model_validate({"stages": stages}), {})
    run = Federation(tuner, spec, fails=fails).run()
    assert len(run.arms) == 2
    assert run.tuner.delivers() == 0


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_restart_changes_nothing(after: int) -> None:
    spec = study()
    whole = fixed(spec, cosine=True, average=0.8).run()
    cut = fixed(spec, cosine=True, average=0.8)
    cut.run(until=lambda: len(cut.arms) - len(cut.open) >= after)
    cut.restart(FixedTuner(spec, FixedOptions(cosine=True, average=0.8), {}))
    cut.run()
    assert cut.arms == whole.arms


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1.0}, "hyperparameters.lr: is -1: `lr` must be at least 0"),
        ({"momentum": "a"}, 'hyperparameters.momentum: is "a": it must be a number'),
        ({"mine": [1]}, r"hyperparameters.mine: is \[1\]: it must be a number, a text, true or false"),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FixedOptions.model_validate({"hyperparameters": given})
    assert re.match(message, sentences(violations_of(raised.value, FixedOptions)))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"rounds": 3, "hyperparameters": {"lr": "a"}}], 'stages.0.hyperparameters.lr: is "a": it must be a number.'),
        ([{"rounds": 0}], "stages.0.rounds: is 0: it must be at least 1."),
        ([], "stages: is []: add a stage, such as { rounds = 20 }."),
    ],
)
def test_a_wrong_schedule_is_refused_in_one_sentence(stages: list[Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ScheduleOptions.model_validate({"stages": stages})
    assert sentences(violations_of(raised.value, ScheduleOptions)) == message


def test_an_unknown_name_is_refused_once_the_task_is_known() -> None:
    with pytest.raises(InvalidInputError, match=r"tuner\.hyperparameters\.drop: is no .* did you mean `dropout`"):
        fixed(study(), {"dropout": 0.5}, hyperparameters={"drop": 0.1})
    assert (
        fixed(study(), {"dropout": 0.5}, hyperparameters={"dropout": 0}).run().arms[0].hyperparameters["dropout"] == 0.0
    )


def test_a_wrong_stage_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"tuner\.stages\.1\.hyperparameters\.l"):
        scheduled(study(), [{"rounds": 1}, {"hyperparameters": {"l": 0.1}, "rounds": 1}])
