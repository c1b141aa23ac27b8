"""Tuners by name, as `fedstep compare --tuners` takes them."""

import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin, RoundPolicy, StudySpec
from fedstep.simulation.outcome import Leg
from fedstep.simulation.tuners import check_contender, read_contenders, retraining_of, study_of, with_selectors

STUDY = StudySpec.model_validate(
    {
        "name": "small",
        "task": "digits",
        "space": {"lr": {"low": 1e-3, "high": 1.0, "log": True}},
        "round": {"cohort_size": 5},
        "objective": {"metric": "accuracy", "direction": "maximize"},
    }
)


def options(text: str) -> dict[str, object]:
    (contender,) = read_contenders(text)
    return {"name": contender.plugin.name, **contender.plugin.options}


def test_a_list_keeps_its_order_and_names_each_once() -> None:
    assert [c.text for c in read_contenders("stepwise, random,stepwise,fixed")] == ["stepwise", "random", "fixed"]


def test_options_are_read_as_in_a_study_file() -> None:
    assert options("stepwise:use_forks=false:average=0.8:proposer=random:screen_members=5") == {
        "name": "stepwise",
        "use_forks": False,
        "average": 0.8,
        "proposer": "random",
        "screen_members": 5,
    }


def test_a_table_among_the_options_may_hold_commas_and_colons() -> None:
    assert options('fixed:hyperparameters={lr = 0.1, optimizer = "a:b"}') == {
        "name": "fixed",
        "hyperparameters": {"lr": 0.1, "optimizer": "a:b"},
    }


def test_optuna_prunes_nothing_unless_told_to() -> None:
    assert options("optuna:TPESampler") == {
        "name": "optuna",
        "sampler": "TPESampler",
        "sampler_options": {},
        "pruner": "NopPruner",
    }


def test_a_sampler_and_a_pruner_have_options_of_their_own() -> None:
    assert options("optuna:TPESampler:n_startup_trials=4:gamma=1e+3+HyperbandPruner:reduction_factor=3") == {
        "name": "optuna",
        "sampler": "TPESampler",
        "sampler_options": {"n_startup_trials": 4, "gamma": 1000.0},
        "pruner": "HyperbandPruner",
        "pruner_options": {"reduction_factor": 3},
    }


def test_what_is_of_neither_part_is_the_tuners_own() -> None:
    assert options("optuna:TPESampler:enqueue=[{}]:n_startup_trials=4")["enqueue"] == [{}]
    assert options("optuna:TPESampler:enqueue=[{}]:n_startup_trials=4")["sampler_options"] == {"n_startup_trials": 4}
    assert options("ray:BasicVariantGenerator+PopulationBasedTraining:population=6")["population"] == 6


def test_so_have_a_searcher_and_a_scheduler_of_rays() -> None:
    assert options("ray:HyperOptSearch:gamma=0.3+AsyncHyperBandScheduler:grace_period=2") == {
        "name": "ray",
        "searcher": "HyperOptSearch",
        "searcher_options": {"gamma": 0.3},
        "scheduler": "AsyncHyperBandScheduler",
        "scheduler_options": {"grace_period": 2},
    }
    assert options("ray:OptunaSearch")["scheduler"] == "FIFOScheduler"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ray:HyperOptSearch+ASHASchedler", "did you mean `ASHAScheduler`?"),
        ("randm", "there is no tuner randm: did you mean `random`?"),
        ("optuna:TPESampelr", "did you mean `TPESampler`?"),
        ("optuna:TPESampler+HyperbndPruner", "did you mean `HyperbandPruner`?"),
        ("optuna:TPESampler:n_startup_trial=4", "did you mean `n_startup_trials`?"),
        ("random:speed=3", "speed"),
    ],
)
def test_a_misspelt_part_is_told_with_the_nearest_right_name(text: str, said: str) -> None:
    (contender,) = read_contenders(text)
    with pytest.raises(InvalidInputError, match="--tuners has") as refused:
        check_contender(contender, study_of(STUDY, contender, 0, 60, 20))
    assert said in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("text", ["random,,fixed", "", "stepwise:forks", "stepwise:=3", "stepwise:name=3"])
def test_what_cannot_be_read_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--tuners"):
        read_contenders(text)


def test_options_without_a_part_that_they_are_of_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="where no sampler is named: write its name before its options"):
        read_contenders("optuna:enqueue=[{}]")


def test_a_budget_counts_client_rounds_and_leaves_the_rest_of_the_study_alone() -> None:
    (contender,) = read_contenders("random")
    spec = study_of(STUDY, contender, seed=7, rounds=90, trial_rounds=30)
    assert spec.budget.client_rounds == 90 * 5
    assert spec.budget.rounds_per_trial == 30
    assert spec.budget.trials > 90
    assert spec.seed == 7
    assert spec.tuner.name == "random"
    assert spec.model_copy(update={"budget": STUDY.budget, "seed": STUDY.seed, "tuner": STUDY.tuner}) == STUDY


def test_a_round_without_a_size_has_no_price() -> None:
    (contender,) = read_contenders("random")
    whole_fleet = STUDY.model_copy(update={"round": STUDY.round.model_copy(update={"cohort_size": 0})})
    with pytest.raises(InvalidInputError, match="cohort_size"):
        study_of(whole_fleet, contender, 0, 60, 60)


def test_a_retraining_replays_the_stages_in_as_many_rounds() -> None:
    stages = [Leg(hyperparameters={"lr": 0.1}, rounds=20), Leg(hyperparameters={"lr": 0.01}, rounds=10)]
    (contender,) = read_contenders("stepwise")
    spec = retraining_of(STUDY, contender, stages, average=0.8, seed=5)
    assert spec.tuner.name == "schedule"
    assert spec.tuner.options == {
        "stages": [{"hyperparameters": {"lr": 0.1}, "rounds": 20}, {"hyperparameters": {"lr": 0.01}, "rounds": 10}],
        "average": 0.8,
    }
    assert spec.budget.client_rounds == 30 * 5


def test_a_tuner_that_deals_its_points_is_refused_where_rounds_are_buffered() -> None:
    policy = {"mode": "buffered", "cohort_size": 5, "buffer_size": 2}
    buffered = STUDY.model_copy(update={"round": RoundPolicy.model_validate(policy), "selector": Plugin(name="random")})
    (contender,) = read_contenders("fedex")
    with pytest.raises(InvalidInputError, match=r"--tuners has fedex: .*deals its clients new configurations"):
        check_contender(contender, study_of(buffered, contender, 0, 60, 20))
    assert study_of(buffered, contender, 0, 60, 20).budget.client_rounds == 120


def test_every_tuner_meets_every_selector_and_the_study_keeps_its_own_where_none_is_named() -> None:
    tuners = read_contenders("stepwise,random")
    both = with_selectors(tuners, "random, deadline:quantile=0.3:adapt=false,random")
    assert [contender.text for contender in both] == [
        "stepwise @ random",
        "stepwise @ deadline:quantile=0.3:adapt=false",
        "random @ random",
        "random @ deadline:quantile=0.3:adapt=false",
    ]
    spec = study_of(STUDY, both[1], 0, 60, 20)
    check_contender(both[1], spec)
    assert (spec.tuner.name, spec.selector.name) == ("stepwise", "deadline")
    assert spec.selector.options == {"quantile": 0.3, "adapt": False}
    assert study_of(STUDY, tuners[0], 0, 60, 20).selector == STUDY.selector


def test_what_was_found_with_a_selector_is_trained_again_with_it() -> None:
    (contender,) = with_selectors(read_contenders("stepwise"), "oort")
    spec = retraining_of(STUDY, contender, [Leg(hyperparameters={"lr": 0.1}, rounds=20)], average=0.0, seed=5)
    assert spec.selector.name == "oort"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dedline", "did you mean `deadline`?"),
        ("deadline:quantle=0.3", "quantle"),
        ("deadline:quantile=7", "quantile"),
        ("random:speed=3", "takes no options"),
    ],
)
def test_a_selector_that_there_is_not_is_told_with_the_nearest_right_name(text: str, said: str) -> None:
    (contender,) = with_selectors(read_contenders("fixed"), text)
    with pytest.raises(InvalidInputError, match="--selectors has") as refused:
        check_contender(contender, study_of(STUDY, contender, 0, 60, 20))
    assert said in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("text", ["random,,all", "", "deadline:quantile", "deadline:name=3"])
def test_selectors_that_cannot_be_read_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--selectors"):
        with_selectors(read_contenders("fixed"), text)
