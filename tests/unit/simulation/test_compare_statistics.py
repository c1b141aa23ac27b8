"""The figures of a comparison, against ones reckoned by hand."""

import math

import pytest

from fedstep.common.spec import Objective
from fedstep.simulation.outcome import Key, Outcome, Point
from fedstep.simulation.statistics import difference_of, rows_of, target_of, value_at

ACCURACY = Objective(metric="accuracy", direction="maximize")
LOSS = Objective()


def outcome(tuner: str, seed: int, *values: float) -> Outcome:
    """An outcome whose curve stands at these values after 10, 20, … rounds of 3 seconds each."""
    curve = tuple(Point(rounds=10.0 * i, seconds=30.0 * i, value=value) for i, value in enumerate(values, start=1))
    key = Key(tuner=tuner, seed=seed, budget=10 * len(values), trial_rounds=10)
    return Outcome(key=key, value=values[-1], metrics={}, curve=curve, schedule=())


FIRST = [outcome("first", 0, 0.5, 0.9), outcome("first", 1, 0.7, 0.8), outcome("first", 2, 0.6, 0.7)]
OTHER = [outcome("other", 0, 0.3, 0.6), outcome("other", 1, 0.8, 0.7), outcome("other", 2, 0.2, 0.5)]


def test_a_row_has_mean_standard_error_worst_and_best() -> None:
    row = rows_of(FIRST, ["first"], ACCURACY, None)[0]
    assert row.mean == pytest.approx(0.8)
    assert row.error == pytest.approx(0.1 / math.sqrt(3))
    assert (row.worst, row.best, row.seeds) == (0.7, 0.9, 3)


def test_less_is_better_for_a_loss() -> None:
    row = rows_of(FIRST, ["first"], LOSS, 0.6)[0]
    assert (row.worst, row.best) == (0.9, 0.7)
    assert row.reached == 2


def test_time_to_the_target_is_the_median_over_seeds() -> None:
    row = rows_of(FIRST, ["first"], ACCURACY, 0.7)[0]
    assert row.reached == 3
    assert row.rounds_to_target == 20
    assert row.seconds_to_target == 60


def test_a_tuner_whose_middle_seed_never_comes_there_has_no_time() -> None:
    row = rows_of(OTHER, ["other"], ACCURACY, 0.75)[0]
    assert row.reached == 1
    assert row.rounds_to_target is None
    assert row.seconds_to_target is None


def test_the_target_is_a_share_of_the_best_that_anyone_reaches_at_any_time() -> None:
    assert target_of([*FIRST, *OTHER], ACCURACY) == pytest.approx(0.95 * 0.9)
    assert target_of([*FIRST, *OTHER], LOSS) == pytest.approx(0.2 / 0.95)
    assert target_of([], ACCURACY) is None


def test_differences_are_paired_by_seed_whatever_their_order() -> None:
    rows = rows_of([*FIRST, *reversed(OTHER)], ["first", "other"], ACCURACY, None)
    assert rows[0].difference is None
    paired = rows[1].difference
    assert paired is not None
    assert paired.seeds == 3
    assert paired.mean == pytest.approx((-0.3 - 0.1 - 0.2) / 3)


def test_only_seeds_that_both_have_are_paired() -> None:
    rows = rows_of([*FIRST[:2], *OTHER[1:]], ["first", "other"], ACCURACY, None)
    paired = rows[1].difference
    assert paired is not None
    assert paired.seeds == 1
    assert paired.mean == pytest.approx(-0.1)
    assert paired.p_t is None


def test_the_signed_rank_test_is_exact_for_few_seeds() -> None:
    # All of n = 10 differences of one sign: 2 of 2¹⁰ sign patterns are as extreme.
    found = difference_of([0.1 + 0.001 * i for i in range(10)], [0.0] * 10)
    assert found.p_wilcoxon == pytest.approx(2 / 2**10)
    assert found.low is not None
    assert found.high is not None
    assert 0.1 < found.low < found.mean < found.high < 0.109


def test_the_paired_t_test_is_students() -> None:
    # Differences 1, 2, 3: t = 2 / (1 / √3) with 2 degrees of freedom; p = 1 − t / √(t² + 2).
    t = 2 * math.sqrt(3)
    assert difference_of([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).p_t == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_equal_tuners_do_not_differ_and_nothing_is_divided_by_zero() -> None:
    found = difference_of([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (found.mean, found.low, found.high, found.p_wilcoxon) == (0.0, 0.0, 0.0, 1.0)


def test_a_curve_is_read_at_its_last_point_until_then() -> None:
    curve = FIRST[0].curve
    assert value_at(curve, 5) is None
    assert value_at(curve, 19.9) == 0.5
    assert value_at(curve, 100) == 0.9


def test_values_midway_are_of_budgets_not_yet_spent() -> None:
    row = rows_of(FIRST, ["first"], ACCURACY, None, at=[10, 20])[0]
    assert list(row.midway) == [10]
    assert row.midway[10][0] == pytest.approx(0.6)


def test_a_tuner_without_outcomes_has_no_row() -> None:
    assert [row.tuner for row in rows_of(OTHER, ["first", "other"], ACCURACY, None)] == ["other"]
