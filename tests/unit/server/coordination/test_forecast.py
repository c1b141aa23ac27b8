"""How long a study will still take."""

import pytest
from e2e.studies import spec
from unit.server.report.arms import NOW

from fedstep.server.coordination.account import Account, Mark
from fedstep.server.coordination.forecast import TimeLeft, ToCome, forecast, limits_of, rounds_to_come, time_left
from fedstep.server.storage.base import Spent, StudyRecord, StudyState, TrialRecord, TrialState
from fedstep.server.tuning.base import Cost


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def now(self) -> object:
        return NOW


def marks(*ends_s: float) -> list[Mark]:
    """A round at each of these ends."""
    return [Mark(at_s, Spent(number, 5 * number, 100 * number)) for number, at_s in enumerate(ends_s)]


def rounds(likely: float, most: float | None = None) -> dict[str, ToCome]:
    return {"rounds": ToCome(likely, likely if most is None else most)}


def trial(number: int, trained: int, state: TrialState = TrialState.COMPLETED) -> TrialRecord:
    return TrialRecord(number, state, {}, tuple(0.5 for _ in range(trained)))


def test_rounds_at_one_pace_take_as_long_as_before() -> None:
    assert time_left(marks(0, 2, 4, 6), rounds(10), 6.0, None) == TimeLeft(20.0, 20.0, 20.0)


def test_nothing_is_said_before_a_round_has_ended() -> None:
    assert time_left([], rounds(10), 0.0, None) is None
    assert time_left(marks(0), rounds(10), 0.0, None) is None


def test_the_round_under_way_is_counted_and_holds_the_estimate_up_where_it_takes_longer() -> None:
    seen = marks(0, 2, 4)
    assert time_left(seen, rounds(3), 5.0, None) == TimeLeft(5.0, 5.0, 5.0)
    assert time_left(seen, rounds(3), 60.0, None) == TimeLeft(4.0, 4.0, 4.0)


def test_a_pace_that_has_changed_is_told_as_a_span() -> None:
    slow, fast = [10.0 * n for n in range(11)], [100.0 + n for n in range(1, 11)]
    left = time_left(marks(*slow, *fast), rounds(20), 110.0, None)
    assert left is not None
    assert left.about_s == pytest.approx(20.0)
    assert left.least_s == pytest.approx(20.0)
    assert left.most_s == pytest.approx(20 * 110 / 20)


def test_where_trials_may_be_pruned_it_may_take_less_than_at_most() -> None:
    assert time_left(marks(0, 1, 2), rounds(10, 40), 2.0, None) == TimeLeft(10.0, 10.0, 40.0)


def test_what_is_spent_first_ends_the_study() -> None:
    to_come = {"rounds": ToCome(10, 10), "payload_bytes": ToCome(300, 300)}
    assert time_left(marks(0, 2, 4), to_come, 4.0, None) == TimeLeft(6.0, 6.0, 6.0)
    assert time_left(marks(0, 2, 4), to_come, 4.0, 1.5) == TimeLeft(1.5, 1.5, 1.5)
    assert time_left([], {}, 0.0, 7.0) == TimeLeft(7.0, 7.0, 7.0)


def test_rounds_to_come_of_trials_and_the_final_ones() -> None:
    study = spec(budget={"trials": 4, "rounds_per_trial": 8, "final_rounds": 2})
    assert rounds_to_come(study, []) == ToCome(34, 34)
    pruned = [trial(0, 8), trial(1, 4, TrialState.PRUNED)]
    assert rounds_to_come(study, pruned) == ToCome(2 * 6 + 2, 2 * 8 + 2)
    running = [*pruned, trial(2, 5, TrialState.RUNNING)]
    assert rounds_to_come(study, running) == ToCome(1 + 6 + 2, 3 + 8 + 2)
    over = [trial(number, 8) for number in range(3)]
    assert rounds_to_come(study, [*over, trial(3, 9)]) == ToCome(1, 1)


def test_a_budget_of_arms_is_in_rounds_where_nothing_else_is_said() -> None:
    fixed = {"tuner": {"name": "fixed"}}
    assert limits_of(spec(**fixed, budget={"trials": 2, "rounds_per_trial": 5})) == {"rounds": 10}
    assert limits_of(spec(**fixed, budget={"client_rounds": 30})) == {"client_rounds": 30}
    assert limits_of(spec(**fixed, budget={"time": "60s"})) == {}
    assert limits_of(spec()) == {}


def test_a_study_is_foretold_from_its_account() -> None:
    study, clock = spec(budget={"trials": 2, "rounds_per_trial": 4}), Clock()
    account = Account(StudyRecord(study, StudyState.RUNNING, NOW, NOW), clock)
    assert forecast(study, account, [], clock.now_s) is None
    clock.now_s = 100.0  # it has waited for clients: that is no pace
    account.spend(Cost(rounds=1, client_rounds=3, seconds=2.0))
    left = forecast(study, account, [trial(0, 1, TrialState.RUNNING)], clock.now_s)
    assert left == TimeLeft(14.0, 14.0, 14.0)


def test_after_a_restart_the_pace_is_that_of_before_until_there_is_another() -> None:
    study, clock = spec(tuner={"name": "fixed"}, budget={"rounds": 20}), Clock()
    record = StudyRecord(study, StudyState.RUNNING, NOW, NOW, seconds_spent=30.0, spent=Spent(10, 50, 0))
    account = Account(record, clock)
    assert forecast(study, account, [], clock.now_s) == TimeLeft(30.0, 30.0, 30.0)
    clock.now_s = 5.0
    account.spend(Cost(rounds=1, seconds=1.0))
    assert forecast(study, account, [], clock.now_s) == TimeLeft(9.0, 9.0, 9.0)
