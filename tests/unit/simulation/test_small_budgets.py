"""Budgets of a round, and of less; and of a time in which clients fall silent."""

from collections.abc import Sequence
from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.common.handicap import Handicap
from fedstep.common.pauses import Pauses
from fedstep.server.storage.base import StudyState
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.run import Federation, Simulated, simulate
from fedstep.simulation.speed import SpeedModel


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


SPEED = SpeedModel(step_ms=100, spread=0)


class StandingStill(Hardship):
    """From the fifth second on all are there and none works."""

    def draw(self, names: Sequence[str], seed: int) -> list[Handicap]:
        return [Handicap(stalls=Pauses(((5.0, 1e5),))) for _ in names]


def timed(time_s: float, hardship: Hardship, deadline: str = "60s") -> Simulated:
    policy = {"cohort_size": 3, "deadline": deadline, "wait_for_clients": "500s"}
    budget = {"time": f"{time_s}s", "trials": 1000, "rounds_per_trial": 3}
    return simulate(
        study(round=policy, evaluation={"deadline": "2s"}, budget=budget),
        Clouds(),
        Federation(8, hardship=hardship, speed=SPEED),
    )


def away_from(second: float) -> Hardship:
    return Hardship(trace={f"client-{number}": Pauses(((second, 1e5),)) for number in range(8)})


@pytest.mark.parametrize("deadline", ["3s", "60s"])
def test_a_study_whose_clients_went_away_waits_for_none_beyond_its_time(deadline: str) -> None:
    found = timed(60.0, away_from(5.0), deadline)
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert found.weights is not None
    assert found.virtual_s == pytest.approx(60.0, abs=0.01)
    waiting = [event.text for event in found.events if event.kind == "waiting_for_clients"]
    assert all("when the study's time is used up, for 1 client of task clouds" in text for text in waiting)
    assert waiting


def test_a_study_to_which_nobody_came_in_its_time_has_no_model() -> None:
    found = timed(60.0, away_from(0.0))
    assert found.record.state is StudyState.FAILED
    assert "budget is used up" in found.record.message
    assert found.virtual_s == pytest.approx(60.0, abs=0.01)


@pytest.mark.parametrize(("time_s", "ends_s"), [(30.0, 46.2), (70.0, 86.2)])
def test_a_round_is_not_tried_again_after_the_time_and_ends_no_study_that_has_a_model(
    time_s: float, ends_s: float
) -> None:
    """Every attempt at a round takes its 20 s."""
    found = timed(time_s, StandingStill(), "20s")
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert found.weights is not None
    assert found.virtual_s == pytest.approx(ends_s, abs=1.0)
