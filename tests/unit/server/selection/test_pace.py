import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.server.selection.pace import Known, Paces, in_time, known, quantile_s, typical_step_s

ROW = np.array([0], np.intp)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def paces(*trainings: list[float], batch_size: int = 16) -> Paces:
    made = Paces()
    made.fit(1)
    for step_ms in trainings:
        made.stepped(0, batch_size, step_ms)
    return made


def step_s(made: Paces, batch_size: int = 16) -> float:
    """The median of one step."""
    predicted = made.predict(ROW, 1, batch_size, 0, 0)
    return float(np.exp(predicted.log_time[0]))


def sd(made: Paces, batch_size: int = 16) -> float:
    return float(made.predict(ROW, 1, batch_size, 0, 0).log_time_sd[0])


def test_a_client_that_was_never_measured_is_unknown() -> None:
    predicted = Paces()
    predicted.fit(1)
    prediction = predicted.predict(ROW, 10, 16, 100, 100)
    assert np.isnan(prediction.log_time[0])
    assert np.isnan(prediction.log_time_sd[0])
    assert not in_time(prediction.log_time, prediction.log_time_sd, 1e9, 0.01)[0]


def test_a_prediction_is_the_steps_and_both_transfers_and_what_else_there_is() -> None:
    made = paces(*[[20.0] * 5] * 30)
    for _ in range(30):
        made.moved(0, "download", 1_000_000, 0.5)
        made.moved(0, "upload", 2_000_000, 3.0)
        made.rested(0, 0.25)
    prediction = made.predict(ROW, 100, 16, 2_000_000, 1_000_000)
    assert float(np.exp(prediction.log_time[0])) == pytest.approx(2.0 + 1.0 + 1.5 + 0.25, rel=0.02)
    assert prediction.beside_s[0] == pytest.approx(2.75, rel=0.02)
    assert prediction.step_s[0] == pytest.approx(0.02, rel=0.02)


def test_the_more_often_it_was_the_same_the_surer_it_is() -> None:
    spreads = [sd(paces(*[[20.0] * 5] * count)) for count in (1, 3, 10, 30)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] == pytest.approx(0.5, abs=0.01)
    assert spreads[-1] == pytest.approx(0.1)
    varied = paces(*[[10.0 * factor] * 5 for factor in (1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2)])
    assert sd(varied) > 0.3


def test_the_first_step_warms_up_and_is_left_out() -> None:
    assert step_s(paces([5000.0, 10.0, 10.0, 10.0])) == pytest.approx(0.01, rel=0.01)
    assert step_s(paces([30.0])) == pytest.approx(0.03, rel=0.01)  # there is no other


def test_one_stall_does_not_ruin_an_estimate() -> None:
    first = paces([10.0, 10.0, 60_000.0, 10.0, 10.0])
    assert step_s(first) == pytest.approx(0.01, rel=0.01)
    made = paces(*[[10.0] * 5] * 10)
    made.stepped(0, 16, [60_000.0] * 5)
    assert 0.01 < step_s(made) < 0.015


def test_stalls_that_repeat_are_believed() -> None:
    assert step_s(paces([10.0, 10.0, 1000.0, 10.0, 1000.0])) > 0.4
    made = paces(*[[10.0] * 5] * 10)
    for _ in range(12):
        made.stepped(0, 16, [1000.0] * 5)
    assert step_s(made) > 0.5


def test_it_follows_a_client_that_becomes_faster() -> None:
    made = paces(*[[100.0] * 5] * 10)
    for _ in range(12):
        made.stepped(0, 16, [10.0] * 5)
    assert step_s(made) < 0.02


@given(st.lists(st.lists(NUMBERS, max_size=5), max_size=10), st.integers(-5, 10**9), NUMBERS, NUMBERS)
def test_whatever_clients_report_predictions_stay_numbers(
    trainings: list[list[float]], batch_size: int, seconds: float, bound: float
) -> None:
    made = paces([10.0])
    for step_ms in trainings:
        made.stepped(0, batch_size, step_ms)
    for way in ("download", "upload"):
        made.moved(0, way, 1000, seconds)
    made.moved(0, "upload", 0, seconds)
    made.steps_take_at_least(0, 16, bound)
    made.rested(0, 0.0)
    prediction = made.predict(ROW, 10, 16, 1000, 1000)
    assert all(np.isfinite(column).all() for column in vars(prediction).values())
    assert (prediction.log_time_sd > 0).all()


@pytest.mark.parametrize("step_ms", [[], [math.nan], [0.0, -1.0], [5.0, 0.0, math.inf]])
def test_what_is_no_duration_is_passed_over(step_ms: list[float]) -> None:
    assert typical_step_s(step_ms) is None


def test_a_batch_size_that_was_never_tried_is_guessed_from_its_neighbours() -> None:
    made = paces(*[[10.0] * 5] * 30, batch_size=8)
    assert 0.01 < step_s(made, 32) < 0.04  # neither the same nor in proportion
    assert 0.0025 < step_s(made, 2) < 0.01
    assert sd(made, 32) > sd(made, 16) > sd(made, 8)
    for _ in range(30):
        made.stepped(0, 128, [160.0] * 5)
    assert step_s(made, 32) == pytest.approx(0.04, rel=0.05)
    assert step_s(made, 8) == pytest.approx(0.01, rel=0.05)


def test_work_that_was_cut_off_took_longer_than_that() -> None:
    unknown = Paces()
    unknown.fit(1)
    assert unknown.steps_take_at_least(0, 16, 2.0)
    assert step_s(unknown) > 2.0
    for _ in range(3):  # the bound rises as long as it is cut off
        assert unknown.steps_take_at_least(0, 16, step_s(unknown) * 2)
    assert step_s(unknown) > 16.0
    slow = paces(*[[5000.0] * 5] * 5)
    assert not slow.steps_take_at_least(0, 16, 2.0)
    assert step_s(slow) == pytest.approx(5.0, rel=0.01)


def test_transfers_that_are_not_known_are_taken_to_be_as_others() -> None:
    made = Paces()
    made.fit(3)
    for row in (0, 1, 2):
        made.stepped(row, 16, [10.0])
    for row in (0, 1):
        made.moved(row, "upload", 1_000_000, 7.0)
    beside_s = made.predict(np.arange(3), 1, 16, 0, 1_000_000).beside_s
    assert beside_s[2] == pytest.approx(beside_s[0], rel=0.01)


def test_what_is_kept_is_json_and_taken_back_predicts_the_same() -> None:
    made = paces(*[[10.0, 12.0, 14.0]] * 3, batch_size=8)
    made.stepped(0, 64, [50.0])
    made.moved(0, "download", 1000, 0.25)
    made.rested(0, 0.125)
    other = Paces()
    other.fit(2)
    other.recall(1, json.loads(json.dumps(made.kept(0))))
    for batch_size in (8, 16, 64):
        mine, theirs = (
            made.predict(ROW, 10, batch_size, 99, 99),
            other.predict(np.array([1], np.intp), 10, batch_size, 99, 99),
        )
        assert all(np.array_equal(vars(mine)[name], vars(theirs)[name]) for name in vars(mine))
    assert other.kept(0) == {}


def test_what_is_known_is_told_for_the_batch_size_most_is_known_of() -> None:
    made = paces([10.0], batch_size=64)
    for _ in range(3):
        made.stepped(0, 8, [4.0])
    made.moved(0, "upload", 1_000_000, 0.5)
    told = known(made.kept(0))
    assert (told.batch_size, told.download_bytes_per_s) == (8, 0.0)
    assert (told.step_ms, told.upload_bytes_per_s) == pytest.approx((4.0, 2e6))
    assert known({}) == Known()


def test_on_time_means_with_that_probability() -> None:
    log_time, spread = np.array([0.0, 0.0, np.nan]), np.array([0.1, 1.0, np.nan])
    by = quantile_s(log_time, spread, 0.8)
    assert by[:2] == pytest.approx([1.0878, 2.3200], rel=1e-3)
    assert in_time(log_time, spread, 1.2, 0.8).tolist() == [True, False, False]
    assert in_time(log_time, spread, 2.4, 0.8).tolist() == [True, True, False]


def test_what_is_only_known_to_take_longer_never_runs_away() -> None:
    paces = Paces()
    paces.fit(1)
    for _ in range(4):
        paces.stepped(0, 16, [100.0] * 10)
    paces.steps_take_at_least(0, 16, 1e30)
    (step_s,) = paces.predict(np.array([0]), 1, 16, 0, 0).step_s
    assert step_s < 5.0
