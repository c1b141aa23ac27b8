"""Ray Tune's searchers and schedulers as a tuner, by the tuners' own contract kits."""

import os
import random
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest

from contract.program_kit import Driver, ProgramKit
from contract.tuner_kit import SPACE, Coordinator, TunerKit, loss_of, small_study
from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS
from fedstep.server.tuning.base import Decision, Observation, ProposeContext
from fedstep.server.tuning.proposers import Attempt, Question
from fedstep.server.tuning.ray_proposer import RayProposer
from fedstep.server.tuning.registry import create_tuner, validate_tuner
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.trust_region import TrustRegion
from fedstep.server.tuning.window import Window

FLAT: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "batch_size": {"low": 4, "high": 64, "log": True},
    "local_epochs": {"low": 1, "high": 3},
}
ONE: dict[str, Any] = {"lr": {"low": 1e-4, "high": 1.0, "log": True}}
TRIALS = {"trials": 8, "rounds_per_trial": 4}


class TestOptunaSearch(TunerKit):
    tuner: ClassVar = {"name": "ray"}


class TestVariants(TunerKit):
    tuner: ClassVar = {"name": "ray", "searcher": "BasicVariantGenerator", "scheduler": "MedianStoppingRule"}


class TestHyperOptSearch(TunerKit):
    tuner: ClassVar = {"name": "ray", "searcher": "HyperOptSearch", "searcher_options": {"n_initial_points": 2}}
    space: ClassVar = {name: {k: v for k, v in table.items() if k != "when"} for name, table in SPACE.items()}


class TestBayesOptSearch(TunerKit):
    tuner: ClassVar = {
        "name": "ray",
        "searcher": "BayesOptSearch",
        "searcher_options": {"random_search_steps": 2},
        "scheduler": "FIFOScheduler",
    }
    space: ClassVar = FLAT


class TestPopulationBasedTraining(ProgramKit):
    tuner: ClassVar = {"name": "ray", "scheduler": "PopulationBasedTraining"}


class TestHyperBand(ProgramKit):
    tuner: ClassVar = {"name": "ray", "scheduler": "HyperBandScheduler"}


class TestStepwiseByHyperOpt(ProgramKit):
    tuner: ClassVar = {"name": "stepwise", "sampler": "ray:HyperOptSearch"}


def study(tuner: dict[str, Any], space: dict[str, Any] = FLAT, **changes: Any) -> StudySpec:
    budget = {"trials": 6, "rounds_per_trial": 10, "rounds": 40}
    tables = {"space": space, "tuner": {"name": "ray", **tuner}, "budget": budget, "round": {"cohort_size": 10}}
    return small_study(**tables | changes)


def refused(tuner: dict[str, Any], space: dict[str, Any] = FLAT) -> str:
    with pytest.raises(InvalidInputError) as caught:
        validate_tuner(study(tuner, space))
    return caught.value.message


def run(spec: StudySpec) -> Driver:
    return Driver(create_tuner(spec, ""), spec).run()


@pytest.mark.parametrize(
    ("tuner", "said"),
    [
        ({"searcher": "HyperOptSerach"}, "there is no such searcher: did you mean `HyperOptSearch`?"),
        ({"scheduler": "ASHASchedler"}, "there is no such scheduler: did you mean `ASHAScheduler`?"),
        ({"schedular": "PB2"}, "unknown key `schedular`: did you mean `scheduler`?"),
        (
            {"searcher": "HyperOptSearch", "searcher_options": {"gama": 0.3}},
            "tuner.searcher_options.gama: `HyperOptSearch` has no option `gama`: did you mean `gamma`?",
        ),
        (
            {"searcher": "HyperOptSearch", "searcher_options": {"gamma": "a lot"}},
            'tuner.searcher_options.gamma: is "a lot": it must be a number.',
        ),
        ({"scheduler_options": {"time_attr": "time_total_s"}}, "fedstep sets `time_attr` of `AsyncHyperBandScheduler`"),
        ({"scheduler_options": {"grace_period": 99}}, "`AsyncHyperBandScheduler` refuses them: grace_period must be"),
        ({"searcher_options": {"sampler": {"name": "TPESampelr"}}}, "did you mean `TPESampler`?"),
        ({"searcher_options": {"sampler": {"name": "TPESampler", "n_startup": 2}}}, "did you mean `n_startup_trials`?"),
        ({"searcher_options": {"sampler": "TPESampler"}}, 'it must be a table such as { name = "TPESampler" }.'),
        ({"searcher_options": {"seed": -1}}, "searcher_options.seed: is -1: it must be a whole number, at least 0."),
        ({"scheduler": "PB2", "searcher": "OptunaSearch"}, "PB2 takes no searcher that learns, leave it out."),
        ({"scheduler": "PB3", "population": 5}, "there is no such scheduler"),
        ({"population": 5}, "tuner.population: is for PB2 and PopulationBasedTraining"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(tuner: dict[str, Any], said: str) -> None:
    message = refused(tuner)
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize("searcher", ["HyperOptSearch", "BayesOptSearch"])
def test_conditions_are_refused_where_the_searcher_knows_none(searcher: str) -> None:
    assert f"{searcher} knows no conditions, and `momentum` has one" in refused({"searcher": searcher}, SPACE)


def test_bayesopt_refuses_choices() -> None:
    space = {"lr": {"low": 0.1, "high": 1.0}, "optimizer": {"choices": ["sgd", "adam"]}}
    assert "searches numbers only, and `optimizer` is a choice" in refused({"searcher": "BayesOptSearch"}, space)
    stepwise = small_study(space=space, tuner={"name": "stepwise", "sampler": "ray:BayesOptSearch"})
    with pytest.raises(InvalidInputError, match="moves numbers only"):
        validate_tuner(stepwise)


def test_a_stepwise_study_refuses_a_searcher_that_there_is_not() -> None:
    stepwise = small_study(space=FLAT, tuner={"name": "stepwise", "sampler": "ray:HyperOpt"})
    with pytest.raises(InvalidInputError, match="did you mean `HyperOptSearch`"):
        validate_tuner(stepwise)


@pytest.mark.parametrize(("missing", "fix"), [("ray", "fedstep[ray]"), ("hyperopt", "pip install 'hyperopt'")])
def test_what_is_not_installed_is_named_with_the_fix(missing: str, fix: str) -> None:
    """In a process of its own: what is imported cannot be hidden from this one."""
    program = f"""
import sys
sys.modules[{missing!r}] = None
from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS
from fedstep.server.tuning.registry import validate_tuner
assert "ray.tune" not in sys.modules, "only a study that names it pays for importing it"
study = {{"name": "a", "task": "digits", "space": {{"lr": {{"low": 0.1, "high": 1.0}}}}}}
try:
    validate_tuner(StudySpec.model_validate({{**study, "tuner": {{"name": "ray", "searcher": "HyperOptSearch"}}}}))
except InvalidInputError as error:
    print(error.message)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert fix in said
    assert len(said.splitlines()) == 1


def test_no_cluster_is_started_and_nothing_is_reported() -> None:
    run(study({}))
    import ray

    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_randomness_that_others_share_is_as_before() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    run(study({"scheduler": "PopulationBasedTraining"}))
    assert (random.random(), np.random.random()) == expected


def test_a_population_goes_on_from_better_members_models_and_copies_none() -> None:
    spec = study({"scheduler": "PopulationBasedTraining", "scheduler_options": {"perturbation_interval": 2}})
    driver = run(spec)
    taken_over = driver.told("exploitation")
    assert taken_over
    for note in taken_over:
        number, source = note.details["arms"]
        arm = driver.arms[number]
        assert arm.parents == (source,)
        assert arm.phase == f"member {note.details['member']}" != driver.arms[source].phase
        assert arm.hyperparameters != driver.arms[source].hyperparameters
    assert len({arm.phase for arm in driver.arms.values()}) == 4
    assert len(driver.tuner.keeps()) <= 9  # two a member and the best: not every model that there was


def test_a_member_that_fails_gives_its_place_to_a_new_one() -> None:
    spec = study({"scheduler": "PopulationBasedTraining", "population": 3})
    driver = Driver(create_tuner(spec, ""), spec)
    driver.fails = {1}
    driver.run()
    assert {arm.phase for arm in driver.arms.values()} == {"member 0", "member 1", "member 2", "member 3"}


def test_pb2_perturbs_by_its_model_inside_the_space_the_same_way_every_time() -> None:
    options = {"perturbation_interval": 3, "quantile_fraction": 0.25}
    spec = study({"scheduler": "PB2", "scheduler_options": options}, budget={"rounds": 39, "rounds_per_trial": 9})
    driver = run(spec)
    assert driver.told("exploitation")
    for arm in driver.arms.values():
        spec.space.validate_point(arm.hyperparameters)
    again = create_tuner(spec, "")
    again.restore(driver.state, [])
    assert again.delivers() == driver.tuner.delivers()
    assert again.keeps() == driver.tuner.keeps()


def test_hyperband_halves_a_bracket_and_goes_on_with_the_best() -> None:
    options = {"scheduler_options": {"reduction_factor": 3}}
    spec = study({"scheduler": "HyperBandScheduler", **options}, budget={"rounds": 120, "rounds_per_trial": 9})
    driver = run(spec)
    going_on = [arm for arm in driver.arms.values() if arm.parents]
    assert going_on
    for arm in going_on:
        assert driver.arms[arm.parents[0]].phase == arm.phase
    pruned = [key for key, decision in driver.decisions.items() if decision is Decision.PRUNE]
    assert pruned


def test_asha_stops_what_is_worse_than_its_rung() -> None:
    spec = study({"searcher": "BasicVariantGenerator", "scheduler_options": {"reduction_factor": 2}}, budget=TRIALS)
    coordinator = Coordinator(create_tuner(spec, ""), spec)
    coordinator.run()
    assert Decision.PRUNE in coordinator.decisions.values()
    assert Decision.FINISH in coordinator.decisions.values()


@pytest.mark.parametrize("searcher", ["OptunaSearch", "HyperOptSearch", "BayesOptSearch"])
def test_a_searcher_learns_where_the_good_ones_are(searcher: str) -> None:
    spec = study(
        {"searcher": searcher, "scheduler": "FIFOScheduler"}, ONE, budget={"trials": 24, "rounds_per_trial": 1}
    )
    coordinator = Coordinator(create_tuner(spec, ""), spec)
    coordinator.run()
    losses = [loss_of(arm.hyperparameters, 0) for arm in coordinator.arms.values()]
    assert len(losses) == 24
    assert np.mean(losses[12:]) < np.mean(losses[:6])


def test_of_a_failed_trial_the_searcher_hears_the_worst_value() -> None:
    """BayesOptSearch waits for all of its first trials, and would wait for one that only failed for ever."""
    options = {"searcher": "BayesOptSearch", "searcher_options": {"random_search_steps": 3}}
    spec = study({**options, "scheduler": "FIFOScheduler"}, budget={"trials": 5, "rounds_per_trial": 1})
    tuner = create_tuner(spec, "")
    for number in range(5):
        assert len(tuner.propose(ProposeContext(1, number))) == 1
        failed = "it diverged" if number in (0, 2) else ""
        tuner.observe(Observation(number, 0, None if failed else 0.5 + number, last=not failed, failed=failed))


@pytest.mark.parametrize("searcher", ["OptunaSearch", "HyperOptSearch", "BasicVariantGenerator"])
def test_challengers_are_inside_the_trust_region_and_the_same_for_the_same_question(searcher: str) -> None:
    spec = small_study(space=SPACE, tuner={"name": "stepwise", "sampler": f"ray:{searcher}"})
    validate_tuner(spec)
    center = {"optimizer": "sgd", "momentum": 0.3, "lr": 0.01, "batch_size": 16, "local_epochs": 2}
    region = TrustRegion(Scales(spec, DEFAULTS), center, 0.2, Window())
    proposer = RayProposer(spec, searcher, {}, 2)
    history: list[Attempt] = []
    for generation in range(1, 6):
        question = Question(region, generation, history=tuple(history))
        found, again = proposer.propose(question), proposer.propose(question)
        assert found is not None
        assert found == again
        spec.space.validate_point(found.point)
        assert abs(np.log(float(found.point["lr"]) / 0.01)) <= 0.2 * np.log(1e4) + 1e-9
        history.append(Attempt(generation, found.displacement, -abs(float(found.displacement["lr"]) - 0.5)))
    assert len({str(attempt.displacement) for attempt in history}) == 5
