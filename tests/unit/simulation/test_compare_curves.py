"""Curves: the mean over seeds at the same points, as CSV and as a picture that has room for ten names."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from fedstep.common.spec import Objective
from fedstep.simulation.curves import _apart, curves_of, draw_curves, write_curves
from fedstep.simulation.outcome import Key, Outcome, Point

ACCURACY = Objective(metric="accuracy", direction="maximize")


def outcome(tuner: str, seed: int, *points: tuple[float, float]) -> Outcome:
    curve = tuple(Point(rounds=rounds, seconds=2 * rounds, value=value) for rounds, value in points)
    key = Key(tuner=tuner, seed=seed, budget=40, trial_rounds=20)
    return Outcome(key=key, value=curve[-1].value, metrics={}, curve=curve, schedule=())


def test_between_two_points_the_earlier_model_stands() -> None:
    (curve,) = curves_of([outcome("a", 0, (0, 0.1), (10.5, 0.5), (40, 0.9))], ["a"], ACCURACY)
    at = dict(zip(curve.x.tolist(), curve.mean.tolist(), strict=True))
    assert (at[0], at[10], at[11], at[39], at[40]) == (0.1, 0.1, 0.5, 0.5, 0.9)


def test_a_curve_is_the_mean_with_its_standard_error_over_seeds() -> None:
    found = [outcome("a", 0, (0, 0.2), (40, 0.8)), outcome("a", 1, (0, 0.4), (40, 0.6))]
    (curve,) = curves_of(found, ["a"], ACCURACY)
    assert curve.seeds == 2
    assert curve.mean[-1] == pytest.approx(0.7)
    assert curve.error[-1] == pytest.approx(0.1)
    assert (curve.worst[-1], curve.best[-1]) == (0.6, 0.8)


def test_the_worst_of_a_loss_is_the_highest() -> None:
    found = [outcome("a", 0, (0, 2.0), (40, 0.8)), outcome("a", 1, (0, 2.0), (40, 0.6))]
    (curve,) = curves_of(found, ["a"], Objective())
    assert (curve.worst[-1], curve.best[-1]) == (0.8, 0.6)


def test_all_curves_have_the_same_points_in_the_tuners_order() -> None:
    found = [outcome("b", 0, (0, 0.1), (40, 0.5)), outcome("a", 0, (0, 0.1), (30, 0.5))]
    curves = curves_of(found, ["a", "b", "c"], ACCURACY, "seconds")
    assert [curve.tuner for curve in curves] == ["a", "b"]
    assert all(np.array_equal(curve.x, np.linspace(0, 80, len(curve.x))) for curve in curves)
    assert len(curves[0].x) >= 41


def test_the_csv_has_a_line_for_every_point(tmp_path: Path) -> None:
    curves = curves_of([outcome("a,b", 0, (0, 0.1), (40, 0.5))], ["a,b"], ACCURACY)
    write_curves(tmp_path / "curves.csv", curves, 40, "rounds")
    with (tmp_path / "curves.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(curves[0].x)
    assert lines[-1] == {
        "budget": "40",
        "tuner": "a,b",
        "rounds": "40",
        "seeds": "1",
        "mean": "0.5",
        "standard_error": "0",
        "worst": "0.5",
        "best": "0.5",
    }


@pytest.mark.parametrize("log", [False, True])
def test_ten_lines_with_one_end_can_be_drawn(tmp_path: Path, log: bool) -> None:
    tuners = [f"optuna:TPESampler:n_startup_trials={number}+HyperbandPruner" for number in range(10)]
    found = [outcome(tuner, seed, (0, 0.1), (5, 0.4 + seed / 10), (40, 0.9)) for tuner in tuners for seed in (0, 1)]
    draw_curves(tmp_path / "c.png", curves_of(found, tuners, ACCURACY), "ten $", ACCURACY, "rounds", 0.85, log)
    height, width, _ = imread(tmp_path / "c.png").shape
    assert width > height > 500
    assert list(tmp_path.iterdir()) == [tmp_path / "c.png"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=18).map(sorted))
def test_names_never_cover_one_another(heights: list[float]) -> None:
    places = _apart(heights, 0.05)
    assert all(above - below >= 0.05 - 1e-9 for below, above in itertools.pairwise(places))
    assert max(places) <= 1.02
