"""Whole studies, simulated."""

from typing import Any

import pytest
import torch
from unit.simulation.kit import Clouds, points, study

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.common.task import ClientData, ClientInfo
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.simulation.measuring import held_out_metrics
from fedstep.simulation.population import Population
from fedstep.simulation.run import Federation, Simulated, SimulatedRunner, simulate
from fedstep.simulation.speed import SpeedModel

SLOW = SpeedModel(step_ms=1000, sample_ms=0, bytes_per_s=1e9, spread=0)


def simulated(spec: StudySpec, **federation: Any) -> Simulated:
    return simulate(spec, Clouds(), Federation(**{"clients": 8, **federation}))


def decided(found: Simulated) -> object:
    """All that a study decided and made."""
    trials = [(t.hyperparameters, t.state, t.values, t.metrics) for t in found.trials]
    rounds = [(r.trial, r.round, r.cohort, r.evaluators, r.model_sha256, r.seconds) for r in found.rounds]
    events = [(event.kind, event.time) for event in found.events]
    return trials, rounds, events, found.virtual_s, found.metrics


def test_a_study_runs_to_its_end_with_everything_a_coordinator_records() -> None:
    found = simulated(study())
    assert found.record.state is StudyState.COMPLETED
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETED] * 2
    assert [(r.trial, r.round, r.updates, len(r.evaluators)) for r in found.rounds] == [
        (trial, number, 3, 4) for trial in range(2) for number in range(3)
    ]
    assert [event.number for event in found.events] == list(range(1, len(found.events) + 1))
    assert found.best is not None
    assert found.best.value == max(trial.value or 0 for trial in found.trials)
    assert found.virtual_s == pytest.approx(sum(r.seconds for r in found.rounds))
    assert found.record.seconds_spent == pytest.approx(found.virtual_s)


def test_the_final_models_weights_give_its_held_out_metrics() -> None:
    found = simulated(study())
    assert found.record.result is not None
    assert found.record.result.held_out
    assert found.manifest is not None
    assert found.weights is not None
    population = Population(Clouds(), 1)
    assert held_out_metrics(population, {}, found.weights.view(torch.uint8), found.manifest) == found.metrics


def test_an_averaged_model_is_delivered_under_its_own_names() -> None:
    """With fedavg the average beside its parent has the same bytes."""
    found = simulated(study(seed=2, tuner={"name": "fixed", "average": 0.6}, aggregator={"name": "fedavg"}))
    assert found.best is not None
    assert found.best.details["of_average"]
    assert found.manifest is not None
    assert [tensor.name for tensor in found.manifest.tensors] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert found.record.result is not None
    assert found.record.result.held_out


@pytest.mark.parametrize("vectorised", [True, False])
def test_the_same_seeds_give_the_same_study(vectorised: bool) -> None:
    first, second = (simulated(study(), vectorised=vectorised) for _ in range(2))
    assert decided(first) == decided(second)
    assert decided(simulated(study(seed=6), vectorised=vectorised)) != decided(first)
    assert simulated(study(), vectorised=vectorised, seed=1).virtual_s != first.virtual_s


def test_together_and_one_by_one_are_the_same_study_to_float_tolerance() -> None:
    one, other = (simulated(study(), vectorised=vectorised) for vectorised in (True, False))
    assert [(r.trial, r.round, r.cohort, r.seconds) for r in one.rounds] == [
        (r.trial, r.round, r.cohort, r.seconds) for r in other.rounds
    ]
    for ours, theirs in zip(one.rounds, other.rounds, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-3, abs=1e-4)
    assert one.weights is not None
    torch.testing.assert_close(one.weights, other.weights, rtol=1e-3, atol=1e-4)


def test_a_loaded_population_serves_any_number_of_studies() -> None:
    task, federation = Clouds(), Federation(8)
    population = Population(task, 8)
    first = simulate(study(), task, federation, population=population)
    simulate(study(seed=9), task, federation, population=population)
    assert decided(simulate(study(), task, federation, population=population)) == decided(first)
    assert decided(first) == decided(simulated(study()))


@pytest.mark.parametrize(
    ("tuner", "said"),
    [
        ({"name": "fixed", "hyperparameters": {"widht": 3}}, "tuner.hyperparameters.widht: .* did you mean `width`"),
        (
            {"name": "schedule", "stages": [{"rounds": 1, "hyperparameters": {"lrr": 0.1}}]},
            "tuner.stages.0.hyperparameters.lrr: .* did you mean `lr`",
        ),
    ],
)
def test_a_tuner_that_names_no_hyperparameter_is_refused_before_it_runs(tuner: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        simulated(study(tuner=tuner))


def test_fedex_is_told_the_sizes_of_the_sets_that_losses_were_measured_on() -> None:
    found = simulated(study(tuner={"name": "fedex", "wrapper": "random", "arms": 1}, budget={"rounds": 2}))
    results = (found.record.tuner_state or {})["results"]
    told = [client for result in results.values() for client in result["clients"]]
    assert len(told) == 6
    assert all(3 <= client["validation_samples"] <= 6 for client in told)


def test_another_federations_population_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="8 clients"):
        simulate(study(), Clouds(), Federation(9), population=Population(Clouds(), 8))


def test_rounds_take_the_time_of_their_slowest_update() -> None:
    """Two epochs of three steps each, a second a step; then a third of a second to measure."""
    found = simulated(study(hyperparameters={"batch_size": 64, "local_epochs": 3}), speed=SLOW)
    assert {round(r.seconds, 2) for r in found.rounds} == {3.33}


def test_clients_too_slow_for_the_deadline_send_what_they_have() -> None:
    """Two of three steps: the third would end after it."""
    round_policy = {"cohort_size": 3, "deadline": "2.5s", "quorum": 1.0}
    fixed = {"batch_size": 64, "local_epochs": 3}
    found = simulated(study(round=round_policy, hyperparameters=fixed), speed=SLOW)
    assert found.record.state is StudyState.COMPLETED
    assert {(r.updates, r.metrics["partial_updates"], round(r.seconds, 2)) for r in found.rounds} == {(3, 3, 2.33)}


def test_clients_too_slow_for_a_single_step_are_late() -> None:
    round_policy = {"cohort_size": 3, "deadline": "0.8s", "quorum": 1.0}
    fixed = {"batch_size": 64, "local_epochs": 3}
    found = simulated(study(round=round_policy, hyperparameters=fixed), speed=SLOW)
    assert found.record.state is StudyState.INTERRUPTED
    assert "missed its quorum" in found.record.message
    assert "the deadline of 0.8 s has passed" in found.record.message
    assert found.virtual_s == pytest.approx(2.4, abs=0.01)
    assert found.weights is None


@pytest.mark.parametrize("budget", [{"rounds": 4}, {"client_rounds": 12}])
def test_what_costs_no_rounds_is_measured_when_the_rounds_are_used_up(budget: dict[str, int]) -> None:
    """The last round uses up the budget, and the average is measured after it."""
    found = simulated(study(tuner={"name": "fixed", "average": 0.6}, budget=budget))
    assert found.record.state is StudyState.COMPLETED
    assert len(found.rounds) == 4
    assert [(trial.state, trial.details.get("rounds")) for trial in found.trials] == [
        (TrialState.COMPLETED, 4),
        (TrialState.COMPLETED, 0),
    ]
    assert any(event.kind == "averaging" for event in found.events)


def test_a_budget_of_time_ends_measurements_too() -> None:
    budget = {"time": "10s", "trials": 1, "rounds_per_trial": 100}
    found = simulated(study(tuner={"name": "fixed", "average": 0.6}, budget=budget), speed=SLOW)
    assert len(found.trials) == 1
    assert len(found.rounds) < 100


def test_enough_updates_end_a_round_and_the_others_are_called_off() -> None:
    round_policy = {"cohort_size": 2, "over_selection": 2.0, "deadline": "60s"}
    found = simulated(study(round=round_policy), speed=SpeedModel(spread=1.0))
    assert {len(r.cohort) for r in found.rounds} == {4}
    assert {r.updates for r in found.rounds} == {2}


def test_clients_whose_loss_runs_away_are_stopped_before_their_last_step() -> None:
    space = {"lr": {"low": 50.0, "high": 60.0}}
    fixed = {"batch_size": 1, "local_epochs": 40}
    guard = {"window": 2, "factor": 1.5, "margin": 2.0}
    budget = {"trials": 1, "rounds_per_trial": 1}
    found = simulated(study(space=space, hyperparameters=fixed, guard=guard, budget=budget), speed=SLOW)
    assert found.trials[0].state is TrialState.FAILED
    assert "diverged" in found.trials[0].message
    assert found.virtual_s < 100


def test_a_budget_of_time_is_of_virtual_time() -> None:
    fixed = {"batch_size": 64, "local_epochs": 3}
    budget = {"trials": 5, "rounds_per_trial": 100, "time": "9s"}
    found = simulated(study(hyperparameters=fixed, budget=budget), speed=SLOW)
    assert len(found.rounds) == 3
    assert found.virtual_s == pytest.approx(10, abs=0.1)


def test_every_committed_round_is_told_once_the_runner_knows_it() -> None:
    seen = []

    def commit(runner: SimulatedRunner) -> None:
        best = runner.best()
        assert best is not None
        seen.append((sum(t.rounds for t in runner.trials.values()), runner.virtual_s))
        assert runner.payload(best) is not None

    found = simulate(study(), Clouds(), Federation(8), on_commit=commit)
    assert sorted({rounds for rounds, _ in seen}) == list(range(1, 1 + len(found.rounds)))
    assert [seconds for _, seconds in seen] == sorted(seconds for _, seconds in seen)


def test_events_are_told_as_they_happen() -> None:
    heard: list[int] = []
    found = simulate(study(), Clouds(), Federation(8), on_event=lambda event: heard.append(event.number))
    assert heard == [event.number for event in found.events]


def test_a_callback_that_fails_ends_the_simulation_with_its_error() -> None:
    def fail(runner: SimulatedRunner) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        simulate(study(), Clouds(), Federation(8), on_commit=fail)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "digits"}, "task"),
        ({"tuner": {"name": "rondom"}}, "random"),
        ({"tuner": {"name": "outside"}, "budget": {"rounds": 5}}, "nobody can reach a simulation"),
        ({"selector": {"name": "rondom"}}, "random"),
        ({"aggregator": {"name": "fedavgg"}}, "fedavg"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 1.0}}}, "learning_rate"),
    ],
)
def test_a_study_that_a_coordinator_would_refuse_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        simulated(study(**changes))


def test_optunas_tuner_runs_with_its_study_in_memory() -> None:
    tuner = {"name": "optuna", "sampler": "TPESampler", "sampler_options": {"n_startup_trials": 1}}
    found = simulated(study(tuner=tuner, budget={"trials": 3, "rounds_per_trial": 2}))
    assert found.record.state is StudyState.COMPLETED
    assert len(found.trials) == 3
    assert decided(simulated(study(tuner=tuner, budget={"trials": 3, "rounds_per_trial": 2}))) == decided(found)


def test_trials_at_the_same_time_share_the_fleet() -> None:
    found = simulated(study(parallel_trials=2), clients=8)
    assert found.record.state is StudyState.COMPLETED
    assert found.virtual_s < sum(r.seconds for r in found.rounds)


def overlaps(found: Simulated) -> list[int]:
    """By arm that was trained, how many of those who measured it had trained it."""
    counts = []
    for trial in found.trials:
        legs = [record for record in found.rounds if record.trial == trial.number]
        trained = {name for record in legs for name in record.cohort}
        measured = {name for record in legs for name in record.evaluators}
        counts += [len(trained & measured)] if legs else []
    return counts


@pytest.mark.parametrize("lanes", [1, 2])
def test_whoever_measures_a_leg_did_not_train_it(lanes: int) -> None:
    tuner = {"name": "stepwise", "use_probe": False}
    found = simulated(study(tuner=tuner, budget={"rounds": 24}, parallel_trials=lanes), clients=10 * lanes)
    assert overlaps(found)
    assert not any(overlaps(found))


def test_where_others_are_few_those_who_measure_train_as_well() -> None:
    tuner = {"name": "stepwise", "use_probe": False}
    found = simulated(study(tuner=tuner, budget={"rounds": 24}), clients=8)  # 3 train, 4 measure: two have to do both
    assert 0 < max(overlaps(found)) <= 2


def test_a_federation_of_nobody_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        simulated(study(), clients=0)


@pytest.mark.parametrize("seed", [0, 4, 9, 15, 22])
def test_a_trial_that_is_better_for_a_while_does_not_cost_the_study_its_best_model(seed: int) -> None:
    found = simulated(study(seed=seed, budget={"trials": 4, "rounds_per_trial": 4}))
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert found.weights is not None


def test_a_federation_without_a_sample_to_measure_on_says_so() -> None:
    class Untested(Clouds):
        def load_data(self, client: ClientInfo) -> ClientData:
            return ClientData(super().load_data(client).train, points(0, 1))

    found = simulate(study(), Untested(), Federation(8))
    assert found.record.state is StudyState.FAILED
    assert "none of the 8 clients that are here has a sample to measure on" in found.record.message
