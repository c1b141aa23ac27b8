"""What simulated clients are told by the coordinator's own engine, and what becomes of the updates they send."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from unit.simulation.kit import Clouds, study
from unit.simulation.test_run import decided

from fedstep.client.tasks.digits import Digits
from fedstep.common.handicap import Handicap
from fedstep.server.storage.base import StudyState
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.run import Federation, Simulated, simulate
from fedstep.simulation.speed import SpeedModel

UNEVEN = SpeedModel(step_ms=1000, sample_ms=0, bytes_per_s=300, spread=0.7)
"""A second a step, and 0.8 s for the model, on the median; the slowest clients take several times as long."""


def simulated(aggregator: str = "fedavg", speed: SpeedModel = UNEVEN, **policy: Any) -> Simulated:
    rounds: dict[str, Any] = {"min_clients": 1, "cohort_size": 8, "deadline": "6s", "quorum": 0.1, **policy}
    spec = study(
        tuner={"name": "fixed"}, aggregator={"name": aggregator}, round=rounds, budget={"rounds": 12, "trials": 1}
    )
    return simulate(spec, Clouds(), Federation(12, speed=speed))


def kinds(found: Simulated) -> Counter[str]:
    return Counter(event.kind for event in found.events)


@pytest.mark.parametrize("aggregator", ["fedavg", "fednova"])
def test_slow_clients_send_what_they_have_and_rounds_end_in_time(aggregator: str) -> None:
    found = simulated(aggregator)
    assert found.record.state is StudyState.COMPLETED
    partial = sum(r.metrics.get("partial_updates", 0) for r in found.rounds)
    assert partial > 5
    assert kinds(found)["client_told_to_send"] >= partial
    told = [event for event in found.events if event.kind == "client_told_to_send"]
    assert all(float(e.details["projected_finish_s"] or 99) > 5.0 for e in told)
    training = [e for e in found.events if e.kind == "client_late"]
    assert len(training) < partial  # most that would have been late are not


def test_what_clients_are_told_has_its_own_time() -> None:
    """Not that of the commit, which comes after the whole round and its measurement."""
    found = simulated()
    ended = {event.details["round"]: event.time for event in found.events if event.kind == "round_committed"}
    told = [event for event in found.events if event.kind == "client_told_to_send"]
    assert told
    for event in told:
        before = (ended[event.details["round"]] - event.time).total_seconds()
        assert 0.1 < before < 6.5  # after a deadline of 6 s at the latest


def test_late_updates_count_and_every_round_says_how_many() -> None:
    found = simulated()
    late = [event for event in found.events if event.kind == "late_update_taken"]
    assert late
    assert sum(r.metrics.get("late_updates", 0) for r in found.rounds) == len(late)
    assert all(1 <= event.details["staleness"] <= 3 for event in late)
    once = {(e.details["client"], e.details["trial"], e.details["made_in"]) for e in late}
    assert len(once) == len(late)
    assert kinds(simulated(late_updates="drop"))["late_update_taken"] == 0


def test_bytes_of_late_updates_are_paid_for() -> None:
    found = simulated()
    assert found.record.spent.payload_bytes == sum(r.payload_bytes for r in found.rounds)
    models = sum(4 * 59 * (len(r.cohort) + len(r.evaluators)) for r in found.rounds)
    updates = sum(4 * 59 * (r.updates + int(r.metrics.get("late_updates", 0))) for r in found.rounds)
    assert found.record.spent.payload_bytes >= models + updates


def test_the_same_seeds_give_the_same_study_with_partial_and_late_updates() -> None:
    first, second = simulated(), simulated()
    assert decided(first) == decided(second)


def test_where_everybody_is_in_time_nobody_is_told_anything() -> None:
    found = simulated(speed=SpeedModel(step_ms=100, sample_ms=0, bytes_per_s=1e6, spread=0.1))
    assert not {"client_told_to_send", "client_late", "late_update_taken"} & kinds(found).keys()
    assert all(r.metrics.keys() == found.rounds[0].metrics.keys() for r in found.rounds)


@pytest.mark.parametrize("slowdown", [10.0, 50.0])
def test_few_steps_of_slow_clients_do_not_upset_a_small_federation(slowdown: float) -> None:
    """They did while a step was blown up ten times: accuracy went up and down between 0.2 and 0.9."""
    hyperparameters = {"lr": 0.3, "momentum": 0.5, "batch_size": 8, "local_epochs": 3}
    spec = study(
        task="digits",
        hyperparameters=hyperparameters,
        space={"server_lr": {"low": 0.9, "high": 1.1}},
        tuner={"name": "fixed", "hyperparameters": {"server_lr": 1.0}},
        selector={"name": "deadline"},
        round={"cohort_size": 5, "min_clients": 3, "deadline": "20s"},
        evaluation={},
        budget={"rounds": 20},
    )
    hardship = Hardship(Handicap(slowdown=slowdown), slow_share=0.34)
    found = simulate(spec, Digits(), Federation(6, hardship=hardship))
    assert sum(r.metrics.get("partial_updates", 0) + r.metrics.get("late_updates", 0) for r in found.rounds) > 10
    assert min(r.value or 0.0 for r in found.rounds[5:]) > 0.75


@pytest.mark.parametrize("seed", range(3))
def test_in_a_small_fleet_that_is_asked_nearly_whole_a_slow_client_has_its_turns(seed: int) -> None:
    """It is told to stop nearly every round, since three of five are fast; that is no reason not to wait for it."""
    spec = study(
        seed=seed,
        tuner={"name": "fixed"},
        selector={"name": "deadline"},
        round={"cohort_size": 3, "min_clients": 2, "deadline": "60s"},
        budget={"rounds": 40},
    )
    even = SpeedModel(step_ms=20, sample_ms=1, spread=0.0)
    hardship = Hardship(Handicap(slowdown=20), slow_share=0.2)
    found = simulate(spec, Clouds(), Federation(5, speed=even, hardship=hardship))
    in_time = [(a.client, a.round) for a in found.assignments if a.work == "train" and a.status == "accepted"]
    late = [(e.details["client"], e.details["round"]) for e in found.events if e.kind == "late_update_taken"]
    for client in {name for name, _ in in_time}:
        taken = sorted(round_ for name, round_ in in_time + late if name == client)
        assert max(after - before for before, after in pairwise([-1, *taken, 40])) <= 5  # as promised: 3 × 5 / 3 rounds
