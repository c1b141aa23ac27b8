"""What a study has spent: everything that clients were asked for."""

from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.server.storage.base import Spent, StudyState, TrialState
from fedstep.simulation.run import Federation, Simulated, simulate
from fedstep.simulation.speed import SpeedModel

FIXED = {"batch_size": 64, "local_epochs": 3}


def simulated(speed: SpeedModel, **changes: Any) -> Simulated:
    return simulate(study(hyperparameters=FIXED, **changes), Clouds(), Federation(8, speed=speed))


def spread(deadline_s: float) -> Simulated:
    """Rounds that need all of three clients, of whom some are slow."""
    strict = {"cohort_size": 3, "deadline": f"{deadline_s}s", "quorum": 1.0}
    return simulated(SpeedModel(step_ms=1000, sample_ms=0, bytes_per_s=1e9, spread=0.5), round=strict)


def test_every_attempt_of_a_round_is_paid_for() -> None:
    found = spread(2.2)
    attempts = sum(record.attempts for record in found.rounds)
    assert attempts > len(found.rounds)
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert (found.record.spent.rounds, found.record.spent.client_rounds) == (len(found.rounds), 3 * attempts)
    assert found.record.spent.payload_bytes == sum(record.payload_bytes for record in found.rounds)
    cheapest = min(record.payload_bytes for record in found.rounds if record.attempts == 1)
    assert all(record.payload_bytes > cheapest for record in found.rounds if record.attempts > 1)


def test_attempts_that_came_to_no_round_are_paid_for() -> None:
    found = spread(0.1)
    assert found.record.state is StudyState.INTERRUPTED
    model = Clouds().build_model({"width": 7})
    assert found.record.spent == Spent(0, 9, 9 * 4 * sum(tensor.numel() for tensor in model.parameters()))


def test_failed_rounds_are_paid_for() -> None:
    space = {"lr": {"low": 0.1, "high": 1e8, "log": True}}
    found = simulated(SpeedModel(), space=space, budget={"trials": 6, "rounds_per_trial": 2})
    failed = [trial for trial in found.trials if trial.state is TrialState.FAILED]
    assert failed
    assert found.record.spent.rounds == len(found.rounds) + len(failed)
    assert found.record.spent.client_rounds == 3 * found.record.spent.rounds


def test_measurements_are_paid_for() -> None:
    found = simulated(SpeedModel(), tuner={"name": "stepwise"}, budget={"rounds": 6})
    assert found.record.spent.rounds == len(found.rounds)
    assert found.record.spent.payload_bytes > sum(record.payload_bytes for record in found.rounds)


@pytest.mark.parametrize("final_rounds", [0, 2])
def test_final_rounds_are_paid_for(final_rounds: int) -> None:
    found = simulated(SpeedModel(), budget={"trials": 2, "rounds_per_trial": 2, "final_rounds": final_rounds})
    assert found.record.spent.rounds == len(found.rounds) == 4 + final_rounds
