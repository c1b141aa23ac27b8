"""The price of a round, as a tuner sees it, beside what the round then takes."""

from collections import defaultdict
from statistics import fmean

import pytest
from unit.simulation.kit import Clouds, study
from unit.simulation.test_run import decided

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.storage.base import StudyState
from fedstep.server.tuning.base import Arm, ProposeContext
from fedstep.server.tuning.random_search import RandomTuner
from fedstep.server.tuning.stepwise import StepwiseTuner
from fedstep.simulation.run import Federation, Simulated, simulate
from fedstep.simulation.speed import SpeedModel

UNEVEN = SpeedModel(step_ms=1000, sample_ms=100, bytes_per_s=3000, spread=0.5)
"""Fixed speeds, the fastest some five times the slowest."""

SPACE = {
    "lr": {"low": 0.01, "high": 0.5, "log": True},
    "local_epochs": {"low": 1, "high": 6},
    "batch_size": {"low": 2, "high": 16},
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[int, float | None]:
    """What each arm was told to take a round, when it was proposed."""
    seen: dict[int, float | None] = {}
    plain = RandomTuner.propose

    def propose(self: RandomTuner, context: ProposeContext) -> list[Arm]:
        arms = plain(self, context)
        seen.update({arm.number: context.prices.round_s(arm.hyperparameters) for arm in arms})
        return arms

    monkeypatch.setattr(RandomTuner, "propose", propose)
    return seen


def simulated(selector: str, seed: int, size: int = 6, **changes: object) -> Simulated:
    spec = study(
        seed=seed,
        selector={"name": selector},
        space={**SPACE, **changes},
        round={"cohort_size": size, "deadline": "600s"},
        budget={"trials": 12, "rounds_per_trial": 4},
    )
    return simulate(spec, Clouds(), Federation(16, speed=UNEVEN, seed=seed))


def took(found: Simulated) -> dict[int, float]:
    """Seconds of a round of each trial, in the mean."""
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    for record in found.rounds:
        seconds[record.trial].append(record.seconds)
    return {trial: fmean(each) for trial, each in seconds.items()}


@pytest.mark.parametrize("selector", ["random", "deadline", "oort", "all"])
def test_it_is_what_the_round_then_takes_once_clients_were_measured(
    selector: str, told: dict[int, float | None]
) -> None:
    """From the fourth trial on, to within 30 % in four of five trials, whatever is tuned."""
    ratios = []
    for seed in (1, 2):
        told.clear()
        seconds = took(simulated(selector, seed))
        assert told[0] is None  # nobody was measured
        ratios += [(told[trial] or 0.0) / seconds[trial] for trial in range(3, 12)]
        assert max(seconds.values()) > 2.5 * min(seconds.values())  # configurations do differ
    assert sum(0.7 < ratio < 1.3 for ratio in ratios) > 0.8 * len(ratios), sorted(ratios)


def test_a_deadline_that_is_tuned_is_in_the_price(told: dict[int, float | None]) -> None:
    deadline = {"low": 2.0, "high": 20.0, "log": True}
    found = simulated("random", 1, deadline_s=deadline)
    points: dict[int, Hyperparameters] = {trial.number: trial.hyperparameters for trial in found.trials}
    seconds = took(found)
    bounded = [trial for trial in range(3, 12) if seconds[trial] > 0.9 * float(points[trial]["deadline_s"])]
    assert bounded
    for trial in bounded:
        assert told[trial] == pytest.approx(seconds[trial], rel=0.3)


@pytest.mark.parametrize(("selector", "budget_s"), [("deadline", 400), ("random", 1200)])
def test_a_step_wise_study_of_seconds_ends_inside_them_and_knew_its_prices(
    selector: str, budget_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[int, float | None] = {}
    plain = StepwiseTuner.propose

    def propose(self: StepwiseTuner, context: ProposeContext) -> list[Arm]:
        arms = plain(self, context)
        told.update({arm.number: context.prices.round_s(arm.hyperparameters) for arm in arms if arm.rounds})
        return arms

    monkeypatch.setattr(StepwiseTuner, "propose", propose)
    ratios = []
    for seed in (1, 2):
        told.clear()
        spec = study(
            seed=seed,
            selector={"name": selector},
            space=SPACE,
            tuner={"name": "stepwise", "sampler": "random"},
            round={"cohort_size": 6, "deadline": "600s"},
            budget={"time": f"{budget_s}s"},
        )
        found = simulate(spec, Clouds(), Federation(16, speed=UNEVEN, seed=seed))
        assert found.record.state is StudyState.COMPLETED
        assert 0.9 * budget_s < found.virtual_s <= budget_s
        if seed == 1:
            assert decided(found) == decided(simulate(spec, Clouds(), Federation(16, speed=UNEVEN, seed=seed)))
        assert not [trial for trial in found.trials if "budget" in trial.message]  # nothing was cut off
        seconds = took(found)
        first, *later = sorted(told)
        assert told[first] is None
        ratios += [(told[arm] or 0.0) / seconds[arm] for arm in later if arm in seconds]
    assert sum(0.7 < ratio < 1.3 for ratio in ratios) > 0.8 * len(ratios), sorted(ratios)
