import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from contract.tuner_kit import SPACE, Coordinator, loss_of
from fedstep.common.errors import AlreadyExistsError, InternalError, InvalidInputError, StorageError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Observation, Prices, ProposeContext
from fedstep.server.tuning.optuna_study import OptunaTuner
from fedstep.server.tuning.registry import create_tuner, validate_tuner

FLAT: dict[str, Any] = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.9},
    "local_epochs": {"low": 1, "high": 4},
}
FINITE: dict[str, Any] = {
    "lr": {"low": 0.1, "high": 0.3, "step": 0.1},
    "optimizer": {"choices": ["sgd", "adam"]},
    "momentum": {"low": 0.0, "high": 0.5, "step": 0.5, "when": {"optimizer": "sgd"}},
}
Make = Callable[..., OptunaTuner]


def study(space: dict[str, Any] = FLAT, trials: int = 6, rounds: int = 2, **changes: Any) -> StudySpec:
    tuner = {"name": "optuna", **changes.pop("tuner", {})}
    content = {"name": "kit", "task": "digits", "seed": 7, "space": space, "tuner": tuner}
    budget = {"trials": trials, "rounds_per_trial": rounds}
    spec = StudySpec.model_validate({**content, "budget": budget, **changes})
    validate_tuner(spec)
    return spec


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made = []

    def tuner(spec: StudySpec, database: str = "a") -> OptunaTuner:
        found = create_tuner(spec, f"sqlite:///{tmp_path / database}.sqlite")
        assert isinstance(found, OptunaTuner)
        made.append(found)
        return found

    yield tuner
    for tuner_made in made:
        tuner_made.close()


def stored(tmp_path: Path, database: str = "a") -> list[optuna.trial.FrozenTrial]:
    """The trials in Optuna's tables, as any reader of Optuna's sees them."""
    return optuna.load_study(study_name="kit", storage=f"sqlite:///{tmp_path / database}.sqlite").trials


SAMPLERS: dict[str, dict[str, Any]] = {
    "TPESampler": {"n_startup_trials": 2},
    "RandomSampler": {},
    "GPSampler": {"n_startup_trials": 2},
    "CmaEsSampler": {"warn_independent_sampling": False},
    "NSGAIISampler": {"population_size": 2},
    "NSGAIIISampler": {"population_size": 2},
    "QMCSampler": {"scramble": True, "warn_independent_sampling": False},
    "BruteForceSampler": {},
    "GridSampler": {
        "search_space": {"lr": [0.1, 0.2], "optimizer": ["sgd", "adam"], "momentum": [0.0, 0.5]},
    },
    "PartialFixedSampler": {"fixed_params": {"lr": 0.2}, "base_sampler": {"name": "TPESampler", "n_startup_trials": 2}},
}


def test_no_public_sampler_is_left_out() -> None:
    public = {name for name in optuna.samplers.__all__ if name.endswith("Sampler") and not name.startswith("Base")}
    assert public == set(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_goes_on_after_a_restart_as_if_nothing_had_been(make: Make, sampler: str) -> None:
    space = FINITE if sampler in ("BruteForceSampler", "GridSampler", "PartialFixedSampler") else FLAT
    spec = study(space, tuner={"sampler": sampler, "sampler_options": SAMPLERS[sampler], "pruner": "NopPruner"})
    whole, cut = Coordinator(make(spec, "a"), spec), Coordinator(make(spec, "b"), spec)
    whole.run()
    cut.run(until=lambda: len(cut.decisions) >= 8)
    cut.tuner.propose(ProposeContext(slots=1, next_number=len(cut.arms)))  # lost: never committed
    cut.restart(make(spec, "b"))
    cut.run()
    assert len(whole.arms) == 6
    for arm in whole.arms.values():
        spec.space.validate_point(arm.hyperparameters)
    if sampler not in ("GridSampler", "CmaEsSampler"):  # they go by Optuna's numbers, and a lost trial has one
        assert cut.arms == whole.arms
    assert len({json.dumps(arm.hyperparameters) for arm in cut.arms.values()}) > 1


PRUNERS: dict[str, dict[str, Any]] = {
    "MedianPruner": {"n_startup_trials": 1},
    "NopPruner": {},
    "PercentilePruner": {"percentile": 50.0, "n_startup_trials": 1},
    "SuccessiveHalvingPruner": {"min_resource": 1, "reduction_factor": 2},
    "HyperbandPruner": {"reduction_factor": 2},
    "ThresholdPruner": {"upper": 0.6},
    "PatientPruner": {"wrapped_pruner": {"name": "ThresholdPruner", "upper": 0.1}, "patience": 0},
    "WilcoxonPruner": {"p_threshold": 0.9},
}


def test_no_public_pruner_is_left_out() -> None:
    assert {name for name in optuna.pruners.__all__ if not name.startswith("Base")} == set(PRUNERS)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_any_pruner_can_be_named(make: Make, tmp_path: Path, pruner: str) -> None:
    options = {"pruner": pruner, "pruner_options": PRUNERS[pruner], "sampler": "RandomSampler"}
    spec = study(trials=6, rounds=5, tuner=options)
    coordinator = Coordinator(make(spec), spec)
    coordinator.run()
    ends = {trial.number: trial.state for trial in stored(tmp_path)}
    for (number, _), decision in coordinator.decisions.items():
        if decision is Decision.PRUNE:
            assert ends[number] is TrialState.PRUNED
        elif decision is Decision.FINISH:
            assert ends[number] is TrialState.COMPLETE
    if pruner in ("MedianPruner", "ThresholdPruner", "SuccessiveHalvingPruner"):
        assert TrialState.PRUNED in ends.values()


def test_a_trial_is_kept_as_it_was_trained(make: Make, tmp_path: Path) -> None:
    spec = study(SPACE, trials=1, rounds=3, tuner={"pruner": "NopPruner"})
    coordinator = Coordinator(make(spec), spec)
    coordinator.run()
    (trial,) = stored(tmp_path)
    arm = coordinator.arms[0].hyperparameters
    assert trial.params == pytest.approx(arm)
    assert trial.user_attrs == {"fedstep_trial": 0}
    assert trial.intermediate_values == {round: pytest.approx(loss_of(arm, round)) for round in range(3)}
    assert trial.value == pytest.approx(loss_of(arm, 2))


def test_the_direction_is_the_objectives(make: Make, tmp_path: Path) -> None:
    spec = study(objective={"metric": "accuracy", "direction": "maximize"})
    make(spec).propose(ProposeContext(slots=1, next_number=0))
    found = optuna.load_study(study_name="kit", storage=f"sqlite:///{tmp_path / 'a.sqlite'}")
    assert found.direction is optuna.study.StudyDirection.MAXIMIZE


def test_enqueued_points_come_first_and_the_default_stands_in_for_what_they_leave_out(
    make: Make, tmp_path: Path
) -> None:
    options = {"enqueue": [{}, {"lr": 0.5, "momentum": 0}], "sampler_options": {"n_startup_trials": 2}}
    spec = study(trials=4, tuner={**options, "pruner": "NopPruner"})
    whole, cut = Coordinator(make(spec, "a"), spec), Coordinator(make(spec, "b"), spec)
    whole.run()
    first, second, *others = [whole.arms[number].hyperparameters for number in range(4)]
    assert first == {"lr": 0.05, "momentum": 0.0, "local_epochs": 1}
    assert second == {"lr": 0.5, "momentum": 0.0, "local_epochs": 1}
    assert first not in others
    assert second not in others
    assert [trial.params for trial in stored(tmp_path)][:2] == [first, second]
    cut.tuner.propose(ProposeContext(slots=2, next_number=0))  # lost: never committed
    cut.restart(make(spec, "b"))
    cut.run()
    assert cut.arms == whole.arms


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"enqueue": [{"lr": 0.1}, {"rl": 0.1}]}, "tuner.enqueue.1.rl", "there is no parameter `rl`: .*lr"),
        ({"enqueue": [{"lr": 5.0}]}, "tuner.enqueue.0.lr", "is 5.0: `lr` is"),
        ({"enqueue": {"lr": 0.1}}, "tuner.enqueue", "list"),
        ({"enqueue": [{}] * 99}, "tuner.enqueue", "has 99 points for .* trials: leave some out"),
        (
            {"enqueue": [{}], "sampler": "GridSampler", "sampler_options": {"search_space": {}}},
            "tuner.enqueue",
            "GridSampler has its own list",
        ),
        (
            {
                "enqueue": [{}],
                "sampler": "PartialFixedSampler",
                "sampler_options": {
                    "fixed_params": {"lr": 0.1},
                    "base_sampler": {
                        "name": "GridSampler",
                        "search_space": {"lr": [0.1], "momentum": [0.0], "local_epochs": [1]},
                    },
                },
            },
            "tuner.enqueue",
            "GridSampler has its own list",
        ),
        ({"enqueue": [{"lr": [1]}]}, "tuner.enqueue.0.lr", "`lr` is from"),
    ],
)
def test_a_point_that_cannot_be_enqueued_is_refused(options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"(?s){field}.*{said}"):
        study(tuner=options)


def test_a_value_that_does_not_exist_beside_the_others_is_not_enqueued() -> None:
    enqueue = [{"optimizer": "sgd", "momentum": 0.5}, {"momentum": 0.5}, {"optimizer": "adam", "momentum": 0.5}]
    study(FINITE, tuner={"enqueue": enqueue[:2]})
    with pytest.raises(InvalidInputError, match=r"tuner\.enqueue\.2\.momentum: does not exist .* drop it") as caught:
        study(FINITE, tuner={"enqueue": enqueue})
    assert len(caught.value.violations) == 1


def test_nothing_stays_running_after_a_crash(make: Make, tmp_path: Path) -> None:
    spec = study(parallel_trials=3)
    tuner = make(spec)
    arms = tuner.propose(ProposeContext(slots=3, next_number=0))
    tuner.observe(Observation(1, 0, 0.5))
    again = make(spec)
    again.restore(tuner.state(), [arms[1]])
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL]
    assert again.observe(Observation(1, 1, 0.4, last=True)) is Decision.FINISH
    assert stored(tmp_path)[1].intermediate_values == {0: 0.5, 1: 0.4}
    assert TrialState.RUNNING not in [trial.state for trial in stored(tmp_path)]


def test_a_trial_that_died_between_ask_and_answer_is_failed(make: Make, tmp_path: Path) -> None:
    spec = study()
    make(spec).propose(ProposeContext(slots=1, next_number=0))
    optuna.load_study(study_name="kit", storage=f"sqlite:///{tmp_path / 'a.sqlite'}").ask()  # no number, no parameters
    make(spec).restore({}, [])
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.FAIL] * 2


def test_an_arm_that_was_proposed_again_without_a_restart_leaves_nothing_running(make: Make, tmp_path: Path) -> None:
    tuner = make(study())
    first = tuner.propose(ProposeContext(slots=1, next_number=0))
    assert tuner.propose(ProposeContext(slots=1, next_number=0)) == first
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.FAIL, TrialState.RUNNING]


def test_an_open_arm_that_the_tables_have_lost_is_trained_on(make: Make, tmp_path: Path) -> None:
    tuner = make(study(SPACE))
    arm = Arm(4, {"optimizer": "sgd", "momentum": 0.3, "lr": 0.1, "batch_size": 8, "local_epochs": 2})
    tuner.restore({}, [arm])
    assert tuner.observe(Observation(4, 1, 0.25, last=True)) is Decision.FINISH
    (trial,) = stored(tmp_path)
    assert trial.params == arm.hyperparameters
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.25)


def test_another_study_of_that_name_is_not_taken_over(make: Make, tmp_path: Path) -> None:
    optuna.create_study(study_name="kit", storage=f"sqlite:///{tmp_path / 'a.sqlite'}")
    with pytest.raises(AlreadyExistsError, match="already holds an Optuna study named kit: choose another name"):
        make(study()).propose(ProposeContext(slots=1, next_number=0))


def test_an_arm_that_was_never_proposed_is_a_fault_of_ours(make: Make) -> None:
    tuner = make(study())
    with pytest.raises(InternalError, match="trial 0, which it never proposed"):
        tuner.observe(Observation(0, 0, 0.5))
    tuner.propose(ProposeContext(slots=1, next_number=0))
    with pytest.raises(InternalError, match="trial 3, which it never proposed"):
        tuner.observe(Observation(3, 0, 0.5))


def test_a_failed_arm_is_ranked_behind_all_others_by_tpe(make: Make, tmp_path: Path) -> None:
    tuner = make(study())
    tuner.propose(ProposeContext(slots=1, next_number=0))
    tuner.observe(Observation(0, 0, 0.1))
    assert tuner.observe(Observation(0, 1, None, failed="the loss of 3 clients is not finite")) is Decision.FAIL
    (trial,) = stored(tmp_path)
    assert trial.state is TrialState.PRUNED
    assert trial.constraints == {"fedstep_failed": 1.0}
    assert trial.user_attrs["fedstep_failed"] == "the loss of 3 clients is not finite"


@pytest.mark.parametrize(("direction", "worst"), [("minimize", 0.9), ("maximize", 0.2)])
@pytest.mark.parametrize("nested", [False, True])
def test_a_failed_arm_is_the_worst_to_samplers_of_complete_trials(
    make: Make, tmp_path: Path, direction: str, worst: float, nested: bool
) -> None:
    tuner: dict[str, Any] = {"sampler": "GPSampler"}
    if nested:
        options = {"fixed_params": {"local_epochs": 2}, "base_sampler": {"name": "GPSampler"}}
        tuner = {"sampler": "PartialFixedSampler", "sampler_options": options}
    found = make(study(objective={"metric": "m", "direction": direction}, tuner=tuner, parallel_trials=2))
    found.propose(ProposeContext(slots=2, next_number=0))
    for round, value in enumerate([0.9, 0.2]):
        found.observe(Observation(0, round, value, last=round == 1))
    assert found.observe(Observation(1, 0, None, failed="it diverged")) is Decision.FAIL
    trial = stored(tmp_path)[1]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, worst)


def test_tpe_keeps_away_from_where_arms_failed(make: Make) -> None:
    spec = study({"optimizer": {"choices": ["sgd", "adam"]}, "width": {"low": 1, "high": 9}}, trials=16)
    tuner = make(spec)
    drawn = []
    for number in range(16):
        (arm,) = tuner.propose(ProposeContext(slots=1, next_number=number))
        drawn.append(arm.hyperparameters["optimizer"])
        failed = "it diverged" if drawn[-1] == "adam" else ""
        tuner.observe(Observation(number, 0, None if failed else 0.5, last=not failed, failed=failed))
    assert "adam" in drawn[:8]
    # Had TPE been told FAIL, adam would look unexplored and be drawn again and again.
    assert drawn[8:].count("adam") <= 3


def test_few_trials_are_not_all_drawn_at_random(make: Make) -> None:
    for trials, expected in [(4, 3), (8, 3), (20, 5), (400, 10)]:
        spec = study(trials=trials)
        tuner = make(spec, f"db{trials}")
        tuner.propose(ProposeContext(slots=1, next_number=0))
        assert tuner._study is not None
        sampler = tuner._study.sampler
        assert isinstance(sampler, optuna.samplers.TPESampler)
        assert sampler._n_startup_trials == expected


@pytest.mark.parametrize("sampler", ["BruteForceSampler", "GridSampler"])
def test_what_tries_everything_ends_and_stays_ended(make: Make, sampler: str) -> None:
    options = SAMPLERS[sampler]
    spec = study(FINITE, trials=50, rounds=1, tuner={"sampler": sampler, "sampler_options": options})
    coordinator = Coordinator(make(spec), spec)
    coordinator.run(until=lambda: len(coordinator.arms) >= 3)
    coordinator.tuner.propose(ProposeContext(1, len(coordinator.arms), tuple(coordinator.open)))
    coordinator.restart(make(spec))
    coordinator.run()
    points = [json.dumps(arm.hyperparameters, sort_keys=True) for arm in coordinator.arms.values()]
    if sampler == "BruteForceSampler":
        assert len(points) == len(set(points)) == 3 * (2 + 1)
    else:  # Optuna's grid is a product: it knows no conditions
        assert len(points) == 8
        assert len(set(points)) == 2 * (2 + 1)
    coordinator.restart(make(spec))
    assert coordinator.tuner.propose(ProposeContext(slots=1, next_number=len(coordinator.arms))) == []


def test_the_database_may_be_shared_and_nothing_is_announced(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("CREATE TABLE fedstep_studies (name TEXT)")
    one, other = study(), study(name="other")
    for spec in (one, other):
        coordinator = Coordinator(make(spec), spec)
        coordinator.run()
    assert capfd.readouterr().err == ""
    assert len(stored(tmp_path)) == 6


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////no/such/folder/a.sqlite", "unable to open database file"),
        ("nonsense", "Could not parse SQLAlchemy URL"),
        ("oracle+nodriver://u:secret@host/x", "host/x"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(url: str, words: str) -> None:
    with pytest.raises(StorageError) as caught:
        create_tuner(study(), url)
    assert words in caught.value.message
    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_text("this is a letter to my aunt, not a database\n" * 30)
    with pytest.raises(StorageError, match="file is not a database"):
        create_tuner(study(), f"sqlite:///{tmp_path / 'a.sqlite'}")


def test_a_study_in_memory_works_from_any_thread() -> None:
    spec = study(trials=2)
    tuner = create_tuner(spec, "sqlite://")
    Coordinator(tuner, spec).run()
    tuner.close()


class ByEpochs(Prices):
    """Known from the second time on."""

    def __init__(self) -> None:
        self.asked = 0

    def round_s(self, point: Hyperparameters) -> float | None:
        self.asked += 1
        return 2.0 * float(point["epochs"]) if self.asked > 1 else None


def test_what_a_trial_is_expected_to_take_is_its_attribute(make: Make, tmp_path: Path) -> None:
    tuner = make(study({"epochs": {"type": "int", "low": 1, "high": 5}}, rounds=3))
    prices = ByEpochs()
    for number in range(2):
        tuner.propose(ProposeContext(1, number, prices=prices))
    first, second = stored(tmp_path)
    assert "predicted_seconds" not in first.user_attrs
    assert second.user_attrs["predicted_seconds"] == 3 * 2.0 * second.params["epochs"]
