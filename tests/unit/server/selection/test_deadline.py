"""What `deadline` does beside what every selector promises."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contract.selector_kit import context
from fedstep.server.selection.adaptive import LEAST_S, ROUNDS, AdaptiveDeadline
from fedstep.server.selection.base import Candidates, RoundSeen, Selection
from fedstep.server.selection.deadline import DeadlineOptions, DeadlineSelector
from fedstep.server.selection.utility import statistical_utility

FLEET = [f"c{number:03}" for number in range(100)]


def fleet(seconds: Any = 10.0, **columns: Any) -> Candidates:
    """A hundred clients who need this long for 50 steps, a tenth of it for transfers, and trained a round ago."""
    seconds = np.broadcast_to(np.asarray(seconds, float), 100)
    known = {
        "steps": 50,
        "log_time": np.log(seconds),
        "log_time_sd": 0.1,
        "beside_s": seconds / 10,
        "step_s": seconds * 0.9 / 50,
        "loss": 1.0,
        "train_samples": 100,
        "trained": 3,
        "waited": 1,
        "unasked": 1,
        "unmissed": 50,
    }
    return Candidates.of(FLEET, **(known | columns))


def some_slow() -> np.ndarray:
    """The first fifteen take four times as long."""
    return np.where(np.arange(100) < 15, 40.0, 10.0)


def select(there: Candidates, seed: int = 0, wanted: int = 10, turns: float = 3.0, **changes: Any) -> Selection:
    options = {"over_selection": 1.3, "deadline_s": 600.0, "clients": 100} | changes
    return DeadlineSelector(DeadlineOptions(turns=turns)).select(there, wanted, context(seed, **options))


def slow_in(cohort: tuple[str, ...]) -> int:
    return sum(name < "c015" for name in cohort)


def test_who_will_be_late_is_not_drawn_for_its_worth() -> None:
    there = fleet(some_slow(), unasked=np.where(np.arange(100) < 15, 0, 1))  # nor is it their turn
    for seed in range(30):
        selection = select(there, seed)
        assert slow_in(selection.cohort) == 0
        assert (len(selection.cohort), selection.wanted) == (13, 10)


def test_where_nothing_late_is_taken_the_slow_have_no_turn_but_are_waited_for_when_it_runs_out() -> None:
    early = fleet(some_slow(), waited=4, unasked=4)  # of thirty
    assert any(slow_in(select(early, seed).cohort) for seed in range(10))
    assert not any(slow_in(select(early, seed, takes_late=False).cohort) for seed in range(10))
    long_ago = np.where(np.arange(100) < 15, 20, 2)
    due = fleet(some_slow(), waited=long_ago, unasked=long_ago)
    selection = select(due, takes_late=False)
    assert slow_in(tuple(selection.waited_for)) == 5
    assert set(selection.waited_for) <= set(selection.cohort)


def test_what_a_client_is_worth_decides_how_often_it_is_drawn() -> None:
    worth = np.where(np.arange(100) < 50, 1.0, 4.0)
    there = fleet(loss=worth)
    drawn = [name for seed in range(200) for name in select(there, seed, turns=0).cohort]
    high = sum(name >= "c050" for name in drawn)
    assert 2.0 < high / (len(drawn) - high) < 4.0  # four to one, and three tenths whatever their worth


def test_the_never_measured_come_in_turn() -> None:
    unknown = np.arange(100) >= 60
    there = fleet(
        np.where(unknown, np.nan, 10.0),
        log_time_sd=np.where(unknown, np.nan, 0.1),
        loss=np.where(unknown, np.nan, 1.0),
        unasked=np.where(unknown, 9, 1),
    )
    for seed in range(20):
        cohort = select(there, seed).cohort
        assert sum(name >= "c060" for name in cohort) == 8
        assert len(cohort) == 16  # three of them beside those who will be in time


def test_slow_clients_get_as_many_steps_as_fit() -> None:
    there = fleet(some_slow(), unasked=np.where(np.arange(100) < 15, 5, 1))
    selection = select(there)
    late = [name for name in selection.cohort if name < "c015"]
    assert len(late) == 8
    assert selection.step_budgets.keys() == set(late) == set(selection.unhurried)
    for steps in selection.step_budgets.values():
        assert steps == int((selection.deadline_s / np.exp(0.08416) - 4.0) / 0.72)
        assert 1 <= steps < 50


def test_slow_clients_in_turn_take_nobodys_place_where_more_are_asked_than_needed() -> None:
    there = fleet(some_slow(), unasked=np.where(np.arange(100) < 15, 5, 1))
    selection = select(there)
    assert (len(selection.cohort), selection.wanted) == (16, 10)
    again = select(there, earlier=selection.cohort)
    assert set(again.cohort) == set(selection.cohort)
    assert len(select(there, over_selection=1.0).cohort) == 10
    nobody_slow = select(fleet(unasked=np.where(np.arange(100) < 15, 5, 1)))
    assert (len(nobody_slow.cohort), nobody_slow.unhurried) == (13, frozenset())


def test_whoever_has_not_trained_yet_is_a_newcomer() -> None:
    selection = select(fleet(trained=np.where(np.arange(100) < 50, 0, 3)))
    assert set(selection.newcomers) == {name for name in selection.cohort if name < "c050"}
    assert 0 < len(selection.newcomers) < len(selection.cohort)


def test_a_budget_fits_the_protocol_whatever_a_client_claims() -> None:
    claims = fleet(1e9, step_s=1e-6, beside_s=1e-6, steps=2**62)
    budgets = select(claims, attempt=2, deadline_s=1e5).step_budgets
    assert budgets
    assert max(budgets.values()) < 2**32


def test_one_of_few_who_claims_too_much_does_not_silence_the_others() -> None:
    samples = np.where(np.arange(12) == 0, 2**60, 100)
    few = Candidates.of(FLEET[:12], train_samples=samples, loss=1.0, waited=1)
    assert statistical_utility(few, 0.95, 50)[1:].min() > 0.9


def test_the_deadline_is_where_two_in_five_are_done() -> None:
    seconds = np.linspace(1, 100, 100)
    assert select(fleet(seconds)).deadline_s == pytest.approx(40.0 * np.exp(0.08416), rel=0.01)
    assert select(fleet(seconds), deadline_s=30.0).deadline_s == 30.0
    assert select(fleet(seconds / 1000)).deadline_s == LEAST_S


def test_the_deadline_lies_not_between_a_fast_client_and_a_slow_one() -> None:
    seconds = np.where(np.arange(100) < 40, 2.0, 40.0)
    assert select(fleet(seconds)).deadline_s == pytest.approx(2.0 * np.exp(0.08416), rel=0.01)


def test_a_round_may_be_put_off_by_a_quarter_and_never_beyond_the_studys_deadline() -> None:
    free, bound = select(fleet()), select(fleet(), deadline_s=12.0)
    assert free.latest_s == pytest.approx(1.25 * free.deadline_s)
    assert bound.deadline_s < bound.latest_s == 12.0


def test_while_nobody_is_known_and_when_it_is_tried_again_the_deadline_is_the_studys() -> None:
    assert select(fleet(np.nan)).deadline_s == 600.0
    few = np.where(np.arange(100) < 9, 10.0, np.nan)
    assert select(fleet(few)).deadline_s == 600.0
    assert select(fleet(), attempt=2).deadline_s == 600.0
    assert select(fleet()).deadline_s < 20.0


def test_those_asked_in_vain_are_waited_for_together() -> None:
    in_vain = np.arange(100) < 6
    late = {"waited": np.where(in_vain, 25, 1), "unasked": np.where(in_vain, 10, 1)}
    there = fleet(np.where(in_vain, 100.0, 10.0), **late)
    selection = select(there)
    assert (len(selection.cohort), selection.wanted) == (10, 10)  # nobody is asked for nothing
    assert sum(name < "c006" for name in selection.cohort) == 5
    assert len(selection.step_budgets) == 5
    assert {name for name in selection.cohort if name < "c006"} == set(selection.waited_for)
    again = select(there, earlier=selection.cohort, waited_for=tuple(selection.waited_for))
    assert (set(again.cohort), again.wanted) == (set(selection.cohort), 10)
    assert (again.waited_for, again.deadline_s) == (selection.waited_for, selection.deadline_s)


def test_a_small_cohort_that_waited_for_nobody_does_not_when_it_is_asked_again() -> None:
    few = fleet()
    selection = select(few, over_selection=1.0)
    assert not selection.waited_for
    assert not select(few, earlier=selection.cohort).waited_for


def test_the_deadline_is_extended_for_one_step_of_them() -> None:
    in_vain = np.arange(100) < 6
    late = {"waited": np.where(in_vain, 25, 1), "unasked": np.where(in_vain, 10, 1)}
    there = fleet(np.where(in_vain, 2000.0, 10.0), **late)
    selection = select(there)
    assert selection.deadline_s == pytest.approx((200 + 36) * np.exp(0.08416), rel=0.01)
    assert set(selection.step_budgets.values()) == {1}
    assert select(there, deadline_s=50.0).deadline_s == 50.0


def test_a_round_that_waits_also_asks_those_whose_turn_cannot_be_put_off() -> None:
    in_vain, never = np.arange(100) < 6, np.arange(100) >= 96
    waited = np.where(in_vain, 25, np.where(never, 29, 1))  # of a window of 30
    there = fleet(np.where(in_vain, 100.0, 10.0), waited=waited, unasked=np.where(in_vain, 10, waited))
    cohort = select(there).cohort
    assert sum(name < "c006" for name in cohort) == 5
    assert set(FLEET[96:]) <= set(cohort)


def test_who_was_late_though_waited_for_is_given_more_time_for_the_same_steps() -> None:
    in_vain = np.arange(100) < 6
    late = {"waited": np.where(in_vain, 28, 1), "unasked": np.where(in_vain, 10, 1)}
    seconds = np.where(in_vain, 2000.0, 10.0)
    first, second = (select(fleet(seconds, **late, missed=np.where(in_vain, missed, 0))) for missed in (0, 1))
    assert second.deadline_s == pytest.approx(2 * first.deadline_s)
    assert second.step_budgets == first.step_budgets
    assert select(fleet(seconds, **late, missed=np.where(in_vain, 1, 0)), deadline_s=300.0).deadline_s == 300.0
    always = {"waited": np.where(in_vain, 99, 1), "unasked": np.where(in_vain, 50, 1), "missed": in_vain * 40}
    assert select(fleet(seconds, **always), deadline_s=3600.0).deadline_s == pytest.approx(4 * first.deadline_s)


def test_who_never_answers_is_waited_for_ever_less_often() -> None:
    in_vain = np.arange(100) < 6
    late = {"waited": np.where(in_vain, 25, 1), "unasked": np.where(in_vain, 10, 1), "unmissed": 10}
    assert len(select(fleet(**late, missed=np.where(in_vain, 2, 0))).cohort) == 10
    assert len(select(fleet(**late, missed=np.where(in_vain, 4, 0))).cohort) == 13


def test_who_is_told_to_stop_every_round_is_waited_for_all_the_same() -> None:
    in_vain = np.arange(100) < 6
    late = {"waited": np.where(in_vain, 25, 1), "unasked": 0, "unmissed": np.where(in_vain, 25, 1)}
    selection = select(fleet(np.where(in_vain, 100.0, 10.0), **late))
    assert sum(name < "c006" for name in selection.cohort) == 5


def test_who_is_too_slow_for_a_late_update_too_is_asked_only_to_be_waited_for() -> None:
    """One of whose steps takes longer than the four rounds by whose end a late update is taken."""
    slow = np.arange(100) < 15
    for step_s, asked in ((30.0, True), (50.0, False)):
        there = fleet(step_s=np.where(slow, step_s, 0.18), log_time=np.log(np.where(slow, 50 * step_s, 10.0)))
        due = {"waited": np.where(slow, 12, 1), "unasked": np.where(slow, 12, 1)}
        early = select(replace(there, **due))
        assert (slow_in(early.cohort) > 0) == asked
    due = {"waited": np.where(slow, 25, 1), "unasked": np.where(slow, 25, 1)}
    waited_for = select(replace(there, **due))
    assert slow_in(waited_for.cohort) == 5
    assert waited_for.deadline_s > 50


def test_everybody_is_asked_within_the_promised_rounds() -> None:
    """Fifty rounds with nobody answering but those drawn: the clients' columns as a study keeps them."""
    asked_at, trained_at = np.full(100, -1), np.zeros(100, int)
    for draws in range(30):
        there = fleet(
            trained=(trained_at > 0) * 1, waited=draws - trained_at, unasked=draws - asked_at, loss=1.0 + (draws % 3)
        )
        selection = select(there, seed=draws, draws=draws)
        taken = there.find(selection.cohort)
        asked_at[taken] = draws + 1
        trained_at[taken[: selection.wanted]] = draws + 1
    assert (trained_at > 0).all()


def test_a_deadline_that_pays_goes_on_and_one_that_does_not_turns_back() -> None:
    deadline = AdaptiveDeadline(0.8, 0.8, adapts=True)

    def rounds(seconds: float, gain: float) -> float:
        for number in range(ROUNDS):
            loss[0] -= gain
            deadline.observe(RoundSeen(0, number, seconds=seconds, loss=loss[0]))
        return deadline.factor

    loss = [100.0]
    assert rounds(10, 0.5) == pytest.approx(1.1)
    assert rounds(10, 1.0) == pytest.approx(1.21)  # cheaper: on
    assert rounds(30, 1.0) == pytest.approx(1.1)  # dearer: back
    assert rounds(20, 1.0) == pytest.approx(1.0)
    assert rounds(20, -1.0) == pytest.approx(1.1)  # it got worse


def test_rounds_that_were_not_measured_count_with_the_next_that_is() -> None:
    deadline = AdaptiveDeadline(0.8, 0.8, adapts=True)
    for number in range(2 * ROUNDS):
        deadline.observe(RoundSeen(0, number, seconds=1.0))
    assert deadline.factor == 1.0
    assert AdaptiveDeadline(0.8, 0.8, adapts=False).factor == 1.0
