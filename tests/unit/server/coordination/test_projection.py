"""When clients will be done, and what they are told: by hand, and whatever the numbers are."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedstep.server.coordination.projection import (
    WINDOW,
    Advice,
    Progress,
    Projected,
    RoundEnd,
    best_end,
    pays_to_wait,
    project,
)

END = RoundEnd.at(10.0)
"""Of ten seconds: a margin of half a second, and half a second of patience."""

seconds = st.floats(0.01, 1e4)
progresses = st.builds(
    lambda steps, part, step_s, reported_s: Progress(steps, int(part * steps), step_s, reported_s),
    st.integers(1, 10_000),
    st.floats(0, 1),
    st.one_of(st.just(math.nan), st.floats(0, 100)),
    st.floats(0, 1e3),
)


def test_a_pace_is_the_mean_of_the_latest_steps() -> None:
    progress = Progress.of(100, [9000.0] * 5 + [10.0, 30.0] * (WINDOW // 2), 2.0)
    assert (progress.steps, progress.done, progress.reported_s) == (100, 5 + WINDOW, 2.0)
    assert progress.step_s == pytest.approx(0.02)


def test_steps_whose_report_was_lost_count_as_taken_and_say_nothing_of_the_pace() -> None:
    progress = Progress.of(10, [math.nan, 10.0, math.nan, 30.0], 1.0)
    assert (progress.done, progress.step_s) == (4, pytest.approx(0.02))


@pytest.mark.parametrize("step_ms", [[], [math.nan], [math.inf, -5.0]])
def test_without_a_sound_time_no_pace_is_known(step_ms: list[float]) -> None:
    assert Progress.of(10, step_ms, 1.0).finish_s(1.0, 0.5) == math.inf


def test_it_is_done_when_the_rest_of_its_steps_are() -> None:
    assert Progress(10, 4, 0.5, reported_s=2.0).finish_s(2.1, 0.5) == 2.0 + 6 * 0.5


def test_a_client_that_has_said_nothing_for_long_stands_still() -> None:
    """Its last three steps take as long as ever, after it has woken."""
    assert Progress(10, 7, 0.1, reported_s=2.0).finish_s(6.0, 0.5) == pytest.approx(5.5 + 0.3)


@pytest.mark.parametrize(
    ("progress", "upload_s", "now_s", "expected"),
    [
        # 20 steps of 0.1 s: done after 2 s, and never told anything
        (Progress(20, 10, 0.1, 1.0), 0.0, 1.0, Projected(Advice.GO_ON, 2.0, 1.5)),
        # 200 steps of 0.1 s: after 9.4 s the step after the one under way would end after 9.5 s
        (Progress(200, 90, 0.1, 9.0), 0.0, 9.0, Projected(Advice.GO_ON, 20.0, 9.4)),
        (Progress(200, 94, 0.1, 9.4), 0.0, 9.4, Projected(Advice.STOP_AND_SEND, 20.0, math.inf)),
        # an upload of 3 s: 3 s earlier
        (Progress(200, 64, 0.1, 6.4), 3.0, 6.4, Projected(Advice.STOP_AND_SEND, 23.0, math.inf)),
        # it would be done in time to the second, and is left alone
        (Progress(95, 94, 0.1, 9.4), 0.0, 9.4, Projected(Advice.GO_ON, 9.5, 9.9)),
        # nothing reported: told when a tenth of the deadline is left, and the margin
        (Progress(20), 0.0, 8.0, Projected(Advice.GO_ON, math.inf, 8.5)),
        (Progress(20), 0.0, 8.5, Projected(Advice.STOP_AND_SEND, math.inf, math.inf)),
        # it was fast, and has stood still since: its last 5 steps of a second do not fit in
        (Progress(20, 15, 1.0, 3.0), 0.0, 8.6, Projected(Advice.STOP_AND_SEND, 13.1, math.inf)),
    ],
    ids=["fast", "slow", "slow, at the time", "slow upload", "just in time", "silent", "silent, at the time", "frozen"],
)
def test_what_a_client_is_told_by_hand(progress: Progress, upload_s: float, now_s: float, expected: Projected) -> None:
    found = project(progress, END, upload_s, now_s)
    assert found.advice is expected.advice
    assert found.finish_s == pytest.approx(expected.finish_s)
    assert found.look_again_s == pytest.approx(expected.look_again_s)


@given(progresses, seconds, seconds)
def test_who_is_told_to_stop_would_have_missed(progress: Progress, deadline_s: float, now_s: float) -> None:
    end = RoundEnd.at(deadline_s)
    found = project(progress, end, 0.0, now_s)
    if found.advice is Advice.STOP_AND_SEND:
        assert progress.done < progress.steps
        assert found.finish_s > deadline_s - end.margin_s
    elif progress.done == progress.steps:
        assert found.look_again_s == math.inf
    else:
        assert now_s < found.look_again_s <= now_s + end.patience_s * (1 + 1e-9)


@given(st.integers(1, 1000), st.floats(0.001, 0.5), st.floats(1, 1000), st.floats(0, 0.3), st.floats(0, 1))
def test_who_is_told_as_soon_as_it_must_can_end_its_step_in_time(
    steps: int, step_share: float, deadline_s: float, upload_share: float, part: float
) -> None:
    end, upload_s, step_s = RoundEnd.at(deadline_s), upload_share * deadline_s, step_share * deadline_s
    last_s = end.due_s(upload_s) - step_s  # the step after the one under way ends in time, if it begins by then
    now_s = part * last_s
    assume(now_s < last_s)
    found = project(Progress(steps, 0, step_s, now_s), end, upload_s, now_s)
    assert found.advice is Advice.GO_ON
    assert found.look_again_s <= last_s


@given(progresses, seconds, st.floats(0, 1e4), st.floats(0, 10))
def test_no_time_goes_backwards(progress: Progress, now_s: float, later_s: float, patience_s: float) -> None:
    first = progress.finish_s(now_s, patience_s)
    assert progress.finish_s(now_s + later_s, patience_s) >= first
    assert (
        0 <= progress.share_by(now_s, now_s, patience_s) <= progress.share_by(now_s + later_s, now_s, patience_s) <= 1
    )


@given(st.lists(st.tuples(progresses, seconds), max_size=8), st.integers(0, 10), seconds, seconds, seconds)
def test_the_end_never_moves_beyond_what_was_allowed(
    running: list[tuple[Progress, float]], accepted: int, deadline_s: float, latest_s: float, now_s: float
) -> None:
    end = RoundEnd.at(deadline_s, latest_s)
    assert deadline_s <= best_end(end, accepted, running, now_s) <= max(deadline_s, latest_s)
    assert best_end(RoundEnd.at(deadline_s), accepted, running, now_s) == deadline_s


def test_a_round_is_put_off_where_the_time_brings_more_than_it_did() -> None:
    """Nobody is done, everybody has fetched for 8 s and needs 3 s more: 11.5 s bring all that 10 s bring in half."""
    end = RoundEnd.at(10.0, 15.0)
    late = (Progress(30, 1, 0.1, 8.1), 0.0)
    assert best_end(end, 0, [late, late], 8.2) == pytest.approx(11.5)


def test_a_round_is_not_put_off_for_one_where_most_are_done() -> None:
    end = RoundEnd.at(10.0, 15.0)
    assert best_end(end, 9, [(Progress(30, 1, 0.1, 8.1), 0.0)], 8.2) == 10.0


def test_a_round_is_not_put_off_for_whom_nobody_knows() -> None:
    assert best_end(RoundEnd.at(10.0, 15.0), 0, [(Progress(30), 0.0)], 8.2) == 10.0


@pytest.mark.parametrize(
    ("accepted", "arrive_s", "waits"),
    [
        (7, [5.0], False),  # 8 in 5 s, where 7 are there after one
        (7, [1.1], True),
        (1, [1.1] * 7, True),
        (4, [3.0] * 4, True),  # 8 in 3 s is more than half of 4 in one
        (4, [9.0, 5.0, 1.5, 9.0], True),
        (4, [math.inf] * 3, False),  # taken to be there after four seconds
        (4, [math.inf] * 5, True),
        (4, [], False),
    ],
)
def test_waiting_pays_where_it_does_not_halve_what_comes_in_a_second(
    accepted: int, arrive_s: list[float], waits: bool
) -> None:
    running = [(Progress(10, 1, math.nan if math.isinf(at) else (at - 1.0) / 9, 1.0), 0.0) for at in arrive_s]
    assert pays_to_wait(accepted, running, 1.0) is waits
