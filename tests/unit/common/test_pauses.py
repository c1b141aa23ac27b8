"""Pauses: when they are, and when work is over that stands still in them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.handicap import UNHINDERED, Handicap
from fedstep.common.pauses import NEVER, Pauses

STALLS = Pauses.every(30, 10)
TWICE = Pauses(((2.0, 3.0), (5.0, 9.0)))


@pytest.mark.parametrize(
    ("pauses", "time_s", "found"),
    [
        (NEVER, 7, (math.inf, math.inf)),
        (STALLS, 0, (20, 30)),
        (STALLS, 25, (20, 30)),
        (STALLS, 30, (50, 60)),
        (STALLS, 30 * 10**6 + 1, (30 * 10**6 + 20, 30 * 10**6 + 30)),
        (TWICE, 0, (2, 3)),
        (TWICE, 3, (5, 9)),
        (TWICE, 9, (math.inf, math.inf)),
        (Pauses(TWICE.periods, 10, 4), 0, (1, 5)),
        (Pauses(TWICE.periods, 10, 4), 5, (8, 9)),
        (Pauses(((0.0, 1.0),), 10, 0.5), 0, (-0.5, 0.5)),
    ],
)
def test_the_pause_that_goes_on_or_the_next_one(pauses: Pauses, time_s: float, found: tuple[float, float]) -> None:
    assert pauses.at(time_s) == pytest.approx(found)


def test_a_pause_is_over_for_whoever_sleeps_until_its_end_and_wakes_a_rounding_too_early() -> None:
    assert STALLS.at(math.nextafter(30, 0))[0] == 50


@pytest.mark.parametrize(
    ("pauses", "begin_s", "work_s", "over_s"),
    [
        (NEVER, 5, 2, 7),
        (STALLS, 0, 20, 20),
        (STALLS, 0, 21, 31),
        (STALLS, 22, 1, 31),
        (STALLS, 22, 0, 22),
        (STALLS, 19, 42, 91),
        (TWICE, 0, 3, 4),
        (TWICE, 0, 100, 105),
    ],
)
def test_work_stands_still_in_pauses(pauses: Pauses, begin_s: float, work_s: float, over_s: float) -> None:
    assert pauses.over_s(begin_s, work_s) == pytest.approx(over_s)


def paused_until(pauses: Pauses, time_s: float) -> float:
    """Seconds of pauses before a time, counted one by one."""
    total, now_s = 0.0, 0.0
    while True:
        begins_s, ends_s = pauses.at(now_s)
        if begins_s >= time_s:
            return total
        total += min(ends_s, time_s) - max(begins_s, now_s)
        now_s = ends_s


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0, 1), st.floats(0, 500), st.floats(0, 2000), st.booleans())
def test_what_takes_longer_is_the_pauses(
    moving_s: float, paused_s: float, phase: float, begin_s: float, work_s: float, twice: bool
) -> None:
    cycle_s = moving_s + paused_s
    periods = ((moving_s / 2, moving_s / 2 + paused_s / 2), (cycle_s - paused_s / 2, cycle_s))
    pauses = Pauses(periods if twice else ((moving_s, cycle_s),), cycle_s, phase * cycle_s)
    over_s = pauses.over_s(begin_s, work_s)
    within = paused_until(pauses, over_s) - paused_until(pauses, begin_s)
    assert over_s - begin_s - within == pytest.approx(work_s, abs=0.01)


def test_more_cycles_than_anybody_could_count_cost_nothing() -> None:
    assert Pauses.every(1e-3, 5e-4).over_s(0, 1e9) == pytest.approx(2e9)


def test_a_handicap_slows_work_and_not_transfers_or_the_other_way_round() -> None:
    slow = Handicap(slowdown=3, stalls=STALLS)
    assert slow.worked_s(0, 7) == 31
    assert slow.moved_s(10, 1000, 15) == 25
    away = Handicap(bytes_per_s=100, absences=STALLS)
    assert away.worked_s(10, 15) == 25
    assert away.moved_s(10, 1500, 1) == pytest.approx(35)
    assert away.moved_s(10, 100, 4) == 14
    assert UNHINDERED.moved_s(10, 10**9) == 10
    assert [h.slows_work for h in (slow, away, UNHINDERED)] == [True, False, False]
