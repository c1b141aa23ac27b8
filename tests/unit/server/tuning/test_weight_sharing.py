import math
from typing import Any

import pytest

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import ClientReport, Cost
from fedstep.server.tuning.halving import Halving
from fedstep.server.tuning.spending import clients_asked, rounds_in_all, rounds_left
from fedstep.server.tuning.weight_sharing import WrapperOptions, client_losses, mean_loss


def study(**changes: Any) -> StudySpec:
    content = {"name": "a", "task": "digits", "space": {"lr": {"low": 1e-4, "high": 1.0, "log": True}}}
    return StudySpec.model_validate(content | {"selector": {"name": "random"}} | changes)


def test_clients_asked_counts_those_asked_too_many() -> None:
    assert clients_asked(study(round={"cohort_size": 10, "over_selection": 1.3}), {}) == 13
    assert clients_asked(study(round={"cohort_size": 10}), {"cohort_size": 4}) == 4
    assert clients_asked(study(round={"cohort_size": 10}, hyperparameters={"cohort_size": 6}), {}) == 6
    assert clients_asked(study(), {}) == 0
    buffered = {"mode": "buffered", "cohort_size": 10, "over_selection": 1.3}
    assert clients_asked(study(round=buffered), {}) == 10
    assert clients_asked(study(round={**buffered, "buffer_size": 4}), {}) == 4
    assert clients_asked(study(round={"cohort_size": 10}, selector={"name": "deadline"}), {}) == 13


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        ({"trials": 3, "rounds_per_trial": 7}, 21),
        ({"rounds": 50}, 50),
        ({"client_rounds": 1300}, 100),
        ({"rounds": 50, "client_rounds": 260}, 20),
        ({"client_rounds": 5}, 1),
    ],
)
def test_the_budget_in_rounds(budget: dict[str, Any], rounds: int) -> None:
    assert rounds_in_all(study(budget=budget, round={"cohort_size": 10, "over_selection": 1.3})) == rounds


def test_what_is_left_of_the_budget() -> None:
    spec = study(budget={"rounds": 50, "client_rounds": 300}, round={"cohort_size": 10})
    assert rounds_left(spec, Cost(rounds=10, client_rounds=100)) == 20
    assert rounds_left(spec, Cost(rounds=45, client_rounds=100)) == 5
    assert rounds_left(spec, Cost(rounds=60, client_rounds=600)) == 0
    assert rounds_left(study(budget={"trials": 2, "rounds_per_trial": 5}), Cost(rounds=3)) == 7


def test_a_round_of_everybody_costs_what_rounds_have_cost() -> None:
    spec = study(budget={"client_rounds": 300})
    assert rounds_left(spec, Cost(rounds=2, client_rounds=100)) == 4


def test_a_loss_weighs_by_the_validation_set_that_it_was_measured_on() -> None:
    losses = client_losses(
        [
            ClientReport("a", 0, samples=300, loss_after=1.0, validation_samples=30),
            ClientReport("b", 1, diverged=True, validation_samples=20),
            ClientReport("c", 2, samples=500, loss_after=9.0, validation_samples=10),
            ClientReport("d", 3, validation_samples=7),  # too late: it told nothing
            ClientReport("e", 4, samples=20, loss_after=math.nan, validation_samples=20),
        ]
    )
    assert [(loss.point, loss.loss, loss.weight) for loss in losses] == [
        (0, 1.0, 30),
        (1, 5.0, 20),
        (2, 5.0, 10),
        (4, 5.0, 20),
    ]
    assert mean_loss(losses) == pytest.approx((30 + 100 + 50 + 100) / 80)


def test_nobody_told_anything() -> None:
    assert client_losses([ClientReport("a")]) == []
    assert mean_loss([]) == math.inf


def test_random_search_splits_the_budget_evenly() -> None:
    assert WrapperOptions(wrapper="random").plan(study(budget={"rounds": 600, "rounds_per_trial": 60})) == Halving(
        10, 1, (60,)
    )
    assert WrapperOptions(wrapper="random").plan(study(budget={"rounds": 60, "rounds_per_trial": 60})) == Halving(
        5, 1, (12,)
    )
    assert WrapperOptions(wrapper="random", arms=3, longest=15).plan(study(budget={"rounds": 60})) == Halving(
        3, 1, (15,)
    )
    assert WrapperOptions(wrapper="random").plan(study(budget={"rounds": 3})) == Halving(3, 1, (1,))


def test_successive_elimination_has_27_arms_and_a_trial_for_the_survivor() -> None:
    plan = WrapperOptions().plan(study(budget={"rounds": 180, "rounds_per_trial": 60}))
    assert (plan.trials, plan.stops[-1]) == (27, 60)
    assert WrapperOptions().plan(study(budget={"rounds": 600, "rounds_per_trial": 60})).stops[-1] == 120


def test_a_small_budget_has_fewer_arms_rather_than_a_survivor_that_hardly_trains() -> None:
    spec = study(budget={"rounds": 60, "rounds_per_trial": 60})
    assert WrapperOptions().plan(spec) == Halving(9, 3, (1, 2, 50))  # 27 would leave the survivor 24 rounds
    assert WrapperOptions(arms=27).plan(spec) == Halving(27, 3, (1, 2, 3, 24))
    assert WrapperOptions().plan(study(budget={"rounds": 1})) == Halving(1, 3, (1,))
