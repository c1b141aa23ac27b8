"""Budgets of a round, and of less."""

from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.server.storage.base import StudyState
from fedstep.simulation.run import Federation, simulate


@pytest.mark.parametrize("tuner", ["stepwise", "fedex", "population", "fixed"])
@pytest.mark.parametrize(
    "budget",
    [{"rounds": 1}, {"client_rounds": 1}, {"client_rounds": 4}, {"trials": 1, "rounds_per_trial": 1}],
    ids=str,
)
def test_one_round_is_always_trained_and_its_model_delivered(tuner: str, budget: dict[str, Any]) -> None:
    found = simulate(study(tuner={"name": tuner}, budget=budget), Clouds(), Federation(8))
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert len(found.rounds) == 1
    assert found.weights is not None
