"""Programs: generators that yield arms and are sent what these gave."""

import json
import math
from typing import Any

import pytest

from fedstep.common.errors import InternalError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, ClientReport, Cost, Decision, Observation, Prices, ProposeContext
from fedstep.server.tuning.program import Program, ProgramTuner, Result

SPEC = StudySpec.model_validate({"name": "p", "task": "digits", "space": {"lr": {"low": 0.1, "high": 1.0}}})


class Doubling(ProgramTuner):
    """Two arms beside each other, one from both, one from the best; it writes down what it was sent."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.sent: list[list[Result]] = []

    def program(self) -> Program:
        first = yield [self.arm({"lr": 0.1}, rounds=2, local_validation=True), self.arm({"lr": 0.2}, rounds=2)]
        self.sent.append(first)
        self.deliver(first[0].arm)
        self.note("adoption", "The first is better.", z=-1.0)
        both = yield [self.arm({"lr": 0.3}, parents=(0, 1), rounds=0)]
        self.sent.append(both)
        self.keep(1)
        last = yield [self.arm({"lr": 0.4}, parents=(2,), rounds=1)]
        self.sent.append(last)
        return 3


def context(number: int, slots: int = 5) -> ProposeContext:
    return ProposeContext(slots, number)


def observations() -> list[Observation]:
    """Everything that happens, arms in turn."""
    reports = (ClientReport("a", losses=(2.0, 1.0), step_ms=(3.0, 3.0), loss_before=2.0, loss_after=1.0),)

    def seen(number: int, round: int, last: bool = False) -> Observation:
        value = 1.0 / (number + round + 1)
        cost = Cost(1, 2, 3, 0.5)
        return Observation(number, round, value, {"loss": value}, last, "", {"e": value}, reports, cost)

    return [seen(0, 0), seen(1, 0), seen(1, 1, True), seen(0, 1, True), seen(2, 0, True), seen(3, 0, True)]


def run(tuner: ProgramTuner, seen: list[Observation], proposed: dict[int, Arm]) -> None:
    for observation in seen:
        for arm in tuner.propose(context(len(proposed))):
            proposed[arm.number] = arm
        tuner.observe(observation)


def test_a_step_waits_for_all_of_its_arms() -> None:
    tuner, proposed = Doubling(), dict[int, Arm]()
    run(tuner, observations()[:3], proposed)
    assert sorted(proposed) == [0, 1]
    assert tuner.propose(context(2)) == []
    tuner.observe(observations()[3])
    (mean,) = tuner.propose(context(2))
    assert (mean.parents, mean.rounds) == ((0, 1), 0)


def test_slots_are_not_exceeded_and_the_rest_follows() -> None:
    tuner = Doubling()
    (first,) = tuner.propose(context(0, slots=1))
    (second,) = tuner.propose(context(1, slots=1))
    assert (first.number, second.number) == (0, 1)


def test_results_hold_the_last_measurement_and_all_of_the_cost() -> None:
    tuner = Doubling()
    run(tuner, observations(), {})
    ((one, two), _, _) = tuner.sent
    assert (one.value, one.losses, one.cost) == (0.5, {"e": 0.5}, Cost(2, 4, 6, 1.0))
    assert two.value == pytest.approx(1 / 3)
    assert tuner.spent == Cost(6, 12, 18, 3.0)


def test_a_round_that_was_not_measured_leaves_the_measurement_before() -> None:
    tuner = Doubling()
    tuner.propose(context(0))
    tuner.observe(Observation(0, 0, 0.5, {"loss": 0.5}, losses={"e": 0.5}))
    tuner.observe(Observation(0, 1, None, last=True))
    tuner.observe(Observation(1, 0, None, last=True))
    assert [result.value for result in tuner.sent[0]] == [0.5, None]


def test_clients_are_kept_where_they_were_asked_something_and_summed_up_elsewhere() -> None:
    tuner = Doubling()
    run(tuner, observations(), {})
    one, two = tuner.sent[0]
    assert [client.name for client in one.clients] == ["a", "a"]
    assert two.clients == ()
    assert (two.steps.clients, two.steps.first, two.steps.last) == (2, 2.0, 1.0)


@pytest.mark.parametrize("cut", range(7))
def test_a_restart_at_any_point_goes_on_where_it_was(cut: int) -> None:
    whole, arms = Doubling(), dict[int, Arm]()
    run(whole, observations(), arms)
    first, proposed = Doubling(), dict[int, Arm]()
    run(first, observations()[:cut], proposed)
    ended = {seen.number for seen in observations()[:cut] if seen.last}
    second = Doubling()
    second.restore(
        json.loads(json.dumps(first.state())), [arm for number, arm in proposed.items() if number not in ended]
    )
    run(second, observations()[cut:], proposed)
    assert proposed == arms
    assert second.sent == whole.sent
    assert (second.keeps(), second.delivers(), second.spent) == (whole.keeps(), whole.delivers(), whole.spent)


def test_notes_are_told_once_and_not_again_after_a_restart() -> None:
    tuner, proposed = Doubling(), dict[int, Arm]()
    run(tuner, observations()[:4], proposed)
    (note,) = tuner.notes()
    assert (note.kind, dict(note.details)) == ("adoption", {"z": -1.0})
    assert tuner.notes() == []
    again = Doubling()
    again.restore(tuner.state(), [])
    assert again.notes() == []


class Idle(ProgramTuner):
    """Has nothing to train."""

    def program(self) -> Program:
        return None
        yield


def test_a_program_may_end_before_its_first_arm() -> None:
    tuner = Idle(SPEC)
    assert tuner.propose(context(0)) == []
    assert tuner.delivers() is None


def test_observing_a_round_twice_counts_once() -> None:
    tuner = Doubling()
    tuner.propose(context(0))
    for observation in observations():
        tuner.propose(context(observation.number))
        assert tuner.observe(observation) is tuner.observe(observation)
    assert tuner.spent == Cost(6, 12, 18, 3.0)


def test_a_failed_arm_comes_back_with_its_reason() -> None:
    tuner = Doubling()
    tuner.propose(context(0))
    assert tuner.observe(Observation(0, 0, None, failed="it diverged")) is Decision.FAIL
    assert tuner.observe(Observation(0, 0, None, failed="it diverged")) is Decision.FAIL
    assert tuner.observe(Observation(1, 0, 0.5, last=True)) is Decision.FINISH
    assert [result.failed for result in tuner.sent[0]] == ["it diverged", ""]


def test_a_failure_in_a_round_that_was_seen_before_is_a_failure() -> None:
    tuner = Doubling()
    tuner.propose(context(0))
    assert tuner.observe(Observation(0, 0, 0.5)) is Decision.CONTINUE
    assert tuner.observe(Observation(0, 0, None, failed="it diverged")) is Decision.FAIL
    tuner.observe(Observation(1, 0, 0.5, last=True))
    assert tuner.sent[0][0].failed == "it diverged"


def test_arms_lost_in_a_crash_go_out_again() -> None:
    tuner = Doubling()
    lost = tuner.propose(context(0))
    assert tuner.propose(context(0)) == lost
    again = Doubling()
    again.restore({}, [])
    assert again.propose(context(0)) == lost


class Pricing(Doubling):
    """Its last arm is the cheaper one of two."""

    def program(self) -> Program:
        yield [self.arm({"lr": 0.1}, rounds=1)]
        prices = {lr: self.price({"lr": lr}) for lr in (0.2, 0.3)}
        yield [self.arm({"lr": min(prices, key=lambda lr: prices[lr] or 0.0)}, rounds=1)]
        return 1


class PricedBy(Prices):
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def round_s(self, point: Hyperparameters) -> float | None:
        return self.factor * float(point["lr"])


def test_what_a_price_was_is_known_after_a_restart_whatever_it_is_then() -> None:
    tuner = Pricing()
    tuner.propose(ProposeContext(1, 0, prices=PricedBy(1.0)))
    tuner.observe(Observation(0, 0, 0.5, last=True))
    (arm,) = tuner.propose(ProposeContext(1, 1, prices=PricedBy(-1.0)))
    assert arm.hyperparameters == {"lr": 0.2}
    again = Pricing()
    again.restore(json.loads(json.dumps(tuner.state())), [])
    assert again.propose(ProposeContext(1, 1, prices=PricedBy(-1.0))) == [arm]
    assert again.state() == tuner.state()


def test_without_prices_there_is_none() -> None:
    assert Doubling().price({"lr": 0.1}) is None


def test_what_may_still_be_needed_is_kept() -> None:
    tuner, proposed = Doubling(), dict[int, Arm]()
    run(tuner, observations()[:4], proposed)
    assert tuner.keeps() == {0, 1, 2}  # the parents of the next arm, itself, and what would be delivered
    run(tuner, observations()[4:], proposed)
    assert tuner.keeps() == {1, 3}
    assert tuner.delivers() == 3
    assert tuner.propose(context(4)) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_kept_as_json(value: float) -> None:
    tuner = Doubling()
    tuner.propose(context(0))
    report = ClientReport("a", diverged=True, losses=(1.0, value), loss_after=value)
    tuner.observe(Observation(0, 0, value, {"loss": value}, True, "", {"e": value, "f": 1.0}, (report,)))
    state: dict[str, Any] = json.loads(json.dumps(tuner.state(), allow_nan=False))
    assert state["results"]["0"]["losses"] == {"e": 1e30, "f": 1.0}
    assert "value" not in state["results"]["0"]


def test_an_arm_that_was_never_proposed_is_a_fault_of_ours() -> None:
    with pytest.raises(InternalError, match="trial 9, which it never proposed"):
        Doubling().observe(Observation(9, 0, 0.5))
