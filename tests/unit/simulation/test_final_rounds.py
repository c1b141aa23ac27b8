"""What a study delivers of the final rounds of its best trial."""

from typing import Any

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.server.api import convert
from fedstep.server.cli.records import trial_records
from fedstep.server.report.lineage import Tree
from fedstep.server.storage.base import StudyState
from fedstep.simulation.run import Federation, Simulated, simulate

ROUNDS, FINAL = 2, 6


def simulated(seed: int, **changes: Any) -> Simulated:
    wild = {"lr": 0.9, "momentum": 0.9}
    space = {"server_lr": {"low": 0.8, "high": 2.0}}
    budget = {"trials": 2, "rounds_per_trial": ROUNDS, "final_rounds": FINAL}
    spec = study(seed=seed, hyperparameters=wild, space=space, budget=budget, **changes)
    return simulate(spec, Clouds(), Federation(8))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_model_of_the_best_final_round_is_delivered(seed: int, direction: str) -> None:
    metric = "accuracy" if direction == "maximize" else "loss"
    found = simulated(seed, objective={"metric": metric, "direction": direction}, evaluation={"held_out": False})
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert found.record.result is not None
    best = next(trial for trial in found.trials if trial.details.get("delivered"))
    final = [value for value in best.values[ROUNDS:] if value is not None]
    assert len(final) == FINAL
    chosen = max(final) if direction == "maximize" else min(final)
    assert found.record.result.metrics[metric] == chosen
    told = [event for event in found.events if event.kind == "best_final_round"]
    assert bool(told) == (final[-1] != chosen)
    assert found.record.result.model_sha256 == best.model_sha256 or told
    behind = len(best.values) - best.values[::-1].index(chosen)  # of equals the last
    assert best.rounds_delivered == behind
    (message,) = [trial for trial in map(convert.trial, found.trials) if trial.rounds_delivered]
    (shown,) = Tree(trial_records([message]).values(), best.number).schedule()
    assert (shown.first, shown.last) == (1, behind)


def test_some_of_these_do_not_end_with_their_last_model() -> None:
    """Else the test above shows nothing."""
    told = [e.text for seed in range(6) for e in simulated(seed).events if e.kind == "best_final_round"]
    assert told
    assert all("measured best: the model after its" in text for text in told)
