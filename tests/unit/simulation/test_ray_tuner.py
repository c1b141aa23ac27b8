"""Ray Tune's searchers and schedulers on real rounds: the coordinator's own engine trains what they ask for."""

from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.server.storage.base import StudyState
from fedstep.simulation.run import Federation, simulate

TUNERS: list[dict[str, Any]] = [
    {"name": "ray"},
    {"name": "ray", "searcher": "HyperOptSearch", "scheduler": "MedianStoppingRule"},
    {"name": "ray", "searcher": "BayesOptSearch", "scheduler": "FIFOScheduler"},
    {"name": "ray", "scheduler": "HyperBandScheduler"},
    {"name": "ray", "scheduler": "PopulationBasedTraining"},
    {"name": "stepwise", "sampler": "ray:HyperOptSearch", "constants": {"fork_rounds_left": 0}},
]


@pytest.mark.parametrize("tuner", TUNERS, ids=str)
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_study_comes_to_its_end_and_again_to_the_same_model(tuner: dict[str, Any], lanes: int) -> None:
    spec = study(tuner=tuner, budget={"rounds": 24, "rounds_per_trial": 6}, parallel_trials=lanes)
    found, again = (simulate(spec, Clouds(), Federation(8)) for _ in range(2))
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert 20 <= len(found.rounds) <= 24 + lanes
    assert [trial.hyperparameters for trial in found.trials] == [trial.hyperparameters for trial in again.trials]
    assert found.record.result == again.record.result


def test_a_member_that_takes_over_a_model_has_its_rounds_behind_it() -> None:
    spec = study(
        tuner={"name": "ray", "scheduler": "PopulationBasedTraining"}, budget={"rounds": 40, "rounds_per_trial": 10}
    )
    trials = {trial.number: trial for trial in simulate(spec, Clouds(), Federation(8)).trials}
    members = {number: trial.details["phase"] for number, trial in trials.items()}
    parents = {number: trial.details["parents"] for number, trial in trials.items() if trial.details.get("parents")}
    assert any(members[number] != members[parent] for number, (parent,) in parents.items())
    for number, (parent,) in parents.items():
        assert trials[number].first_round == trials[parent].first_round + len(trials[parent].values)
