"""Buffered rounds by the coordinator's own engine, on a virtual clock."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from unit.simulation.kit import Clouds, study
from unit.simulation.test_run import decided

from fedstep.server.storage.base import StudyState
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.run import Federation, Simulated, simulate
from fedstep.simulation.speed import SpeedModel

UNEVEN = SpeedModel(step_ms=1000, sample_ms=0, bytes_per_s=3000, spread=1.0)
"""Log-normal speeds of a standard deviation of 1: the slowest of 24 takes twenty times as long as the fastest."""

TWELVE = {"rounds": 12, "trials": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the commands set it: two threads wait for each other where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def simulated(
    mode: str = "buffered", clients: int = 24, speed: SpeedModel = UNEVEN, hardship: Hardship | None = None, **how: Any
) -> Simulated:
    policy = {"cohort_size": 8, "deadline": "600s", "mode": mode, **how.pop("round", {})}
    spec = study(**{"tuner": {"name": "fixed"}, "budget": TWELVE, **how, "round": policy})
    return simulate(spec, Clouds(), Federation(clients, speed=speed, hardship=hardship or Hardship()))


def trainings(found: Simulated) -> list[Any]:
    return [a for a in found.assignments if a.work == "train"]


def test_with_log_normal_speeds_as_many_rounds_take_less_time_than_synchronous_ones() -> None:
    buffered, synchronous = simulated(), simulated("synchronous")
    assert [len(f.rounds) for f in (buffered, synchronous)] == [12, 12]
    assert [r.updates for r in buffered.rounds] == [r.updates for r in synchronous.rounds] == [8] * 12
    assert buffered.virtual_s < 0.6 * synchronous.virtual_s


def test_updates_of_earlier_rounds_count_and_nobody_is_told_to_stop_before_the_end() -> None:
    found = simulated()
    assert all(r.metrics.get("staleness", 0.0) > 0.0 for r in found.rounds[1:])
    told = [event for event in found.events if event.kind == "clients_told_to_stop"]
    assert [event.details["round"] for event in told] == [11]
    assert Counter(a.status for a in trainings(found)).keys() == {"accepted", "abandoned"}
    assert sum(a.status == "abandoned" for a in trainings(found)) == len(told[0].details["clients"])


def test_as_many_are_at_work_as_the_cohort_and_a_round_is_as_long_as_its_buffer() -> None:
    found = simulated(round={"buffer_size": 3})
    assert [r.updates for r in found.rounds] == [3] * 12
    assert sum(a.status == "abandoned" for a in trainings(found)) == 7  # the eighth brought the last update


@pytest.mark.parametrize("mode", ["buffered", "synchronous"])
def test_all_that_was_asked_and_sent_is_paid_for(mode: str) -> None:
    found = simulated(mode)
    asked, measured = trainings(found), [a for a in found.assignments if a.work == "evaluate"]
    assert found.record.spent.client_rounds == len(asked)
    sent = 4 * 59 * (len(asked) + len(measured) + sum(a.status == "accepted" for a in asked))
    assert found.record.spent.payload_bytes == sent


@pytest.mark.parametrize("aggregator", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "fednova"])
def test_any_aggregator_will_do(aggregator: str) -> None:
    space = {"lr": {"low": 0.01, "high": 0.5, "log": True}}
    found = simulated(aggregator={"name": aggregator}, space=space, hyperparameters={"server_lr": 0.1})
    assert found.record.state is StudyState.COMPLETED
    assert len(found.rounds) == 12


@pytest.mark.parametrize(
    ("tuner", "budget"),
    [
        ("stepwise", {"rounds": 60}),
        ("fixed", {"rounds": 12}),
        ("random", {"trials": 3, "rounds_per_trial": 3, "final_rounds": 2}),
        ("optuna", {"trials": 5, "rounds_per_trial": 3}),
    ],
)
@pytest.mark.parametrize("parallel", [1, 2])
def test_any_tuner_that_does_not_deal_its_points_tunes_it(tuner: str, budget: dict[str, Any], parallel: int) -> None:
    objective = {"metric": "loss"}
    how: dict[str, Any] = {"tuner": {"name": tuner}, "budget": budget, "parallel_trials": parallel}
    found = simulated(objective=objective, round={"cohort_size": 4, "buffer_size": 3}, **how)
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert len(found.rounds) > 6
    rounds = {(r.trial, r.round): r for r in found.rounds}
    for trial, round in rounds:  # an arm's first buffer holds nothing of another arm
        first = min(r for t, r in rounds if t == trial)
        assert all(
            a.metrics.get("staleness", 0.0) <= round - first
            for a in trainings(found)
            if (a.trial, a.round) == (trial, round)
        )


def test_a_client_is_never_given_the_same_seed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedstep.server.coordination.dispatch import Dispatcher

    seen: list[tuple[str, int]] = []
    real = Dispatcher.trainings

    def trainings(*args: Any, **options: Any) -> Any:
        work = real(*args, **options)
        seen.extend((a.member.name, a.message.seed) for a in work)
        return work

    monkeypatch.setattr(Dispatcher, "trainings", trainings)
    simulated(clients=4, round={"cohort_size": 4, "buffer_size": 12})
    assert len(seen) > 12 * 12
    assert len(set(seen)) == len(seen)


def test_the_same_seeds_give_the_same_study() -> None:
    assert decided(simulated()) == decided(simulated())


def test_a_round_that_nobody_fills_ends_by_the_coordinators_own_timer() -> None:
    trains_only: dict[str, Any] = {
        "evaluation": {"cohort_size": 0, "held_out": False},
        "objective": {"metric": "train_loss", "direction": "minimize"},
    }
    found = simulated(round={"deadline": "20s", "quorum": 0.01, "buffer_size": 100}, **trains_only)
    assert found.record.state is StudyState.COMPLETED
    assert all(20.0 <= r.seconds <= 21.0 and 0 < r.updates < 100 for r in found.rounds)


def test_a_round_below_its_quorum_is_filled_on_and_its_updates_stay() -> None:
    found = simulated(round={"deadline": "12s", "quorum": 1.0, "buffer_size": 10, "min_clients": 1})
    assert found.record.state is StudyState.COMPLETED, found.record.message
    assert any(r.attempts > 1 for r in found.rounds)
    assert all(r.updates == 10 for r in found.rounds)
    asked = len(trainings(found))
    assert found.record.spent.client_rounds == asked


def test_a_configuration_that_runs_away_fails_its_trial_soon() -> None:
    space = {"lr": {"low": 1e6, "high": 1e7, "log": True}}
    how: dict[str, Any] = {"space": space, "tuner": {"name": "random"}, "budget": {"trials": 2, "rounds_per_trial": 3}}
    found = simulated(round={"deadline": "60s"}, **how)
    assert found.record.state is StudyState.FAILED
    assert all("diverged" in trial.message for trial in found.trials)
    assert found.virtual_s < 60.0
    assert {a.status for a in trainings(found)} == {"diverged", "refused"}


def test_clients_that_come_and_go_are_replaced() -> None:
    found = simulated(hardship=Hardship(away_share=0.3, away_for_s=60.0), round={"min_clients": 1})
    assert found.record.state is StudyState.COMPLETED
    lost = [a for a in trainings(found) if a.status == "lost"]
    assert lost
    assert all(r.updates == 8 for r in found.rounds)


def test_slow_clients_are_told_to_send_what_they_have_before_it_is_too_old() -> None:
    found = simulated(round={"buffer_size": 3, "max_staleness": 2})
    assert all(a.metrics.get("staleness", 0.0) <= 2 for a in trainings(found))
    partial = sum(r.metrics.get("partial_updates", 0) for r in found.rounds)
    assert partial > 0
