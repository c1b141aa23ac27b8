"""What every tuner promises (`fedstep.server.tuning.base`), as tests to inherit.

A tuner is correct when a class of its own passes:

    class TestMyTuner(TunerKit):
        tuner = {"name": "mine"}
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fedstep.common.hyperparameters import Value
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Observation, ProposeContext, Tuner
from fedstep.server.tuning.registry import create_tuner

SPACE: dict[str, Any] = {
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3, "when": {"optimizer": "sgd"}},
    "optimizer": {"choices": ["sgd", "adam"]},
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "batch_size": {"low": 4, "high": 64, "log": True},
    "local_epochs": {"low": 1, "high": 3},
}
"""A space with everything in it: a condition, logs, a step, a choice. The child comes before its parent."""


def small_study(**tables: Any) -> StudySpec:
    """A study of a kit."""
    plain = {"name": "kit", "task": "digits", "seed": 7, "selector": {"name": "random"}}
    return StudySpec.model_validate({**plain, **tables})


def loss_of(arm: Mapping[str, Value], round: int) -> float:
    """A loss with its minimum at lr = 0.05 that falls from round to round."""
    return abs(math.log10(float(arm["lr"])) - math.log10(0.05)) + 1.0 / (round + 1)


class Coordinator:
    """The part of a coordinator that drives a tuner: opens arms, trains them by rounds, keeps what is committed."""

    def __init__(self, tuner: Tuner, spec: StudySpec) -> None:
        self.tuner = tuner
        self.spec = spec
        self.arms: dict[int, Arm] = {}
        self.open: dict[int, int] = {}
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.state: dict[str, Any] = {}

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Goes on until the budget is spent, the tuner has nothing left, or `until` holds."""
        for _ in range(1000):
            if until():
                return
            self.fill()
            if not self.open:
                return
            self.train(min(self.open, key=lambda number: (self.open[number], number)))
        raise AssertionError("the tuner does not come to an end")

    def fill(self) -> None:
        """Proposes as long as there are slots and trials left."""
        slots = min(self.spec.parallel_trials - len(self.open), self.spec.budget.trials - len(self.arms))
        if slots > 0:
            self.take(self.tuner.propose(ProposeContext(slots, len(self.arms), tuple(self.open))))

    def take(self, arms: list[Arm]) -> None:
        """Commits new arms."""
        for arm in arms:
            self.arms[arm.number] = arm
            self.open[arm.number] = 0
        self.state = self.tuner.state()

    def train(self, number: int, times: int = 1) -> Decision:
        """Trains one round of an arm and observes it, as often as said."""
        round = self.open[number]
        last = round + 1 == self.spec.budget.rounds_per_trial
        value = loss_of(self.arms[number].hyperparameters, round)
        decision = Decision.CONTINUE
        for _ in range(times):
            decision = self.tuner.observe(Observation(number, round, value, {"loss": value}, last))
        self.decisions[number, round] = decision
        self.open[number] += 1
        if decision is not Decision.CONTINUE:
            del self.open[number]
        self.state = self.tuner.state()
        return decision

    def restart(self, tuner: Tuner) -> None:
        """Another process goes on with what was committed."""
        state = json.loads(json.dumps(self.state))
        tuner.restore(state, [self.arms[number] for number in self.open])
        self.tuner = tuner


class TunerKit:
    """The promises of a tuner.

    Attributes:
        tuner: The study file's `[tuner]` table.
        space: The study's space.
        seeded: Whether another seed gives other arms.
    """

    tuner: ClassVar[dict[str, Any]]
    space: ClassVar[dict[str, Any]] = SPACE
    seeded: ClassVar[bool] = True

    @pytest.fixture
    def tuners(self, tmp_path: Path) -> Iterator[Callable[..., Tuner]]:
        """Makes tuners on databases of their own, by name; closes them at the end."""
        made: list[Tuner] = []

        def make(spec: StudySpec, database: str = "a") -> Tuner:
            made.append(create_tuner(spec, f"sqlite:///{tmp_path / database}.sqlite"))
            return made[-1]

        yield make
        for tuner in made:
            tuner.close()

    def spec(self, **changes: Any) -> StudySpec:
        """A small study of the kit's space."""
        budget = {"trials": 6, "rounds_per_trial": 3}
        return small_study(**{"space": self.space, "tuner": self.tuner, "budget": budget} | changes)

    def test_numbers_arms_upwards_and_fills_no_more_than_the_slots(self, tuners: Callable[..., Tuner]) -> None:
        tuner = tuners(self.spec(parallel_trials=3))
        first = tuner.propose(ProposeContext(slots=3, next_number=0))
        then = tuner.propose(ProposeContext(slots=2, next_number=len(first), open_arms=range(len(first))))
        assert 1 <= len(first) <= 3
        assert len(then) <= 2
        assert [arm.number for arm in first + then] == list(range(len(first + then)))

    def test_arms_are_points_of_the_space(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec(parallel_trials=2)
        coordinator = Coordinator(tuners(spec), spec)
        coordinator.run()
        assert coordinator.arms
        for arm in coordinator.arms.values():
            spec.space.validate_point(arm.hyperparameters)

    def test_same_seed_and_observations_give_same_arms(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec(parallel_trials=2)
        one, other = Coordinator(tuners(spec, "a"), spec), Coordinator(tuners(spec, "b"), spec)
        one.run()
        other.run()
        assert one.arms == other.arms
        assert one.decisions == other.decisions

    def test_another_seed_gives_other_arms(self, tuners: Callable[..., Tuner]) -> None:
        one, other = self.spec(), self.spec(seed=8)
        context = ProposeContext(slots=1, next_number=0)
        same = tuners(one, "a").propose(context) == tuners(other, "b").propose(context)
        assert same is not self.seeded

    def test_every_arm_comes_to_an_end_within_its_rounds(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec(parallel_trials=2)
        coordinator = Coordinator(tuners(spec), spec)
        coordinator.run()
        assert not coordinator.open
        last = {number: max(key for key in coordinator.decisions if key[0] == number) for number in coordinator.arms}
        assert {coordinator.decisions[key] for key in last.values()} <= {Decision.FINISH, Decision.PRUNE}

    def test_a_last_round_with_a_value_finishes_or_prunes(self, tuners: Callable[..., Tuner]) -> None:
        tuner = tuners(self.spec())
        tuner.propose(ProposeContext(slots=1, next_number=0))
        decision = tuner.observe(Observation(0, 0, 0.5, last=True))
        assert decision in (Decision.FINISH, Decision.PRUNE)

    def test_a_failed_arm_fails_and_the_study_goes_on(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec(parallel_trials=2)
        coordinator = Coordinator(tuners(spec), spec)
        coordinator.fill()
        assert coordinator.tuner.observe(Observation(0, 0, None, failed="its loss is not finite")) is Decision.FAIL
        assert coordinator.tuner.observe(Observation(0, 0, None, failed="its loss is not finite")) is Decision.FAIL
        del coordinator.open[0]
        coordinator.run()
        assert len(coordinator.arms) > 2

    @pytest.mark.parametrize("value", [None, math.nan])
    def test_a_round_without_a_value_does_not_end_an_arm(
        self, tuners: Callable[..., Tuner], value: float | None
    ) -> None:
        tuner = tuners(self.spec())
        tuner.propose(ProposeContext(slots=1, next_number=0))
        assert tuner.observe(Observation(0, 0, value)) is Decision.CONTINUE
        assert tuner.observe(Observation(0, 1, 0.5)) in (Decision.CONTINUE, Decision.PRUNE)
        assert tuner.observe(Observation(0, 2, value, last=True)) in (Decision.FINISH, Decision.PRUNE)

    def test_observing_a_round_twice_changes_nothing(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec()
        once, twice = Coordinator(tuners(spec, "a"), spec), Coordinator(tuners(spec, "b"), spec)
        once.run()
        for _ in range(1000):
            twice.fill()
            if not twice.open:
                break
            twice.train(min(twice.open), times=2)
        assert once.arms == twice.arms
        assert once.decisions == twice.decisions

    def test_state_is_small_json(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec()
        coordinator = Coordinator(tuners(spec), spec)
        coordinator.run()
        assert json.loads(json.dumps(coordinator.state)) == coordinator.state
        assert len(json.dumps(coordinator.state)) < 10_000

    @pytest.mark.parametrize("rounds", [0, 1, 7])
    def test_a_restart_changes_nothing(self, tuners: Callable[..., Tuner], rounds: int) -> None:
        spec = self.spec(parallel_trials=2)
        whole, cut = Coordinator(tuners(spec, "a"), spec), Coordinator(tuners(spec, "b"), spec)
        whole.run()
        cut.fill()
        cut.run(until=lambda: len(cut.decisions) >= rounds)
        cut.restart(tuners(spec, "b"))
        cut.run()
        assert cut.arms == whole.arms
        assert cut.decisions == whole.decisions

    def test_a_round_observed_but_not_committed_is_observed_again(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec()
        whole, cut = Coordinator(tuners(spec, "a"), spec), Coordinator(tuners(spec, "b"), spec)
        whole.run()
        for _ in range(1000):
            cut.fill()
            if not cut.open:
                break
            number = min(cut.open)
            round, value = cut.open[number], loss_of(cut.arms[number].hyperparameters, cut.open[number])
            last = round + 1 == spec.budget.rounds_per_trial
            cut.tuner.observe(Observation(number, round, value, {"loss": value}, last))
            if round == 2 or number == 4:  # the coordinator dies here, before its commit
                cut.restart(tuners(spec, "b"))
            cut.train(number)
        assert cut.arms == whole.arms
        assert cut.decisions == whole.decisions

    def test_arms_lost_in_a_crash_are_forgotten(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec(parallel_trials=2)
        coordinator = Coordinator(tuners(spec), spec)
        coordinator.fill()
        coordinator.train(0)
        lost = coordinator.tuner.propose(ProposeContext(1, len(coordinator.arms), tuple(coordinator.open)))
        coordinator.restart(tuners(spec))
        coordinator.run()
        assert not coordinator.open
        assert lost == [] or lost[0].number in coordinator.arms

    def test_a_restart_before_the_first_commit(self, tuners: Callable[..., Tuner]) -> None:
        spec = self.spec()
        first = tuners(spec).propose(ProposeContext(slots=1, next_number=0))
        tuner = tuners(spec)
        tuner.restore({}, [])
        again = tuner.propose(ProposeContext(slots=1, next_number=0))
        assert again == first
