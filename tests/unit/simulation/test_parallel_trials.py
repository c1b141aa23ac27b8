"""Tuners whose arms go on from others, with several arms trained at once."""

from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.server.storage.base import StudyState
from fedstep.simulation.run import Federation, simulate

SPACE = {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "local_epochs": {"low": 1, "high": 3}}


@pytest.mark.parametrize(
    ("tuner", "rounds", "lanes"),
    [("stepwise", 40, 2), ("stepwise", 40, 4), ("fedex", 20, 3), ("population", 20, 3)],
)
def test_every_arm_is_started_once(tuner: str, rounds: int, lanes: int) -> None:
    changes: dict[str, Any] = {"tuner": {"name": tuner}, "space": SPACE, "budget": {"rounds": rounds}}
    found = simulate(study(parallel_trials=lanes, **changes), Clouds(), Federation(12))
    assert found.record.state is StudyState.COMPLETED, found.record.message
    started = [event.details["trial"] for event in found.events if event.kind == "trial_started"]
    assert started == [trial.number for trial in found.trials]
