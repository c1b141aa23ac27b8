import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from unit.server.report.drawn import PARAMETERS, inked, read

from fedstep.common.hyperparameters import Value
from fedstep.common.space import Space
from fedstep.common.spec import Budget, Objective, Plugin, StudySpec
from fedstep.server.report.courses import BEST, COMPLETED, FAILED, courses_of
from fedstep.server.report.picture import draw_study
from fedstep.server.report.scales import ValueRange
from fedstep.server.report.words import cost, outcome, settings
from fedstep.server.storage.base import RoundRecord, StudyRecord, StudyResult, StudyState, TrialRecord, TrialState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def study(
    names: Sequence[str] = ("lr",),
    direction: Literal["minimize", "maximize"] = "maximize",
    tuned: int = 5,
    state: StudyState = StudyState.COMPLETED,
) -> StudyRecord:
    metric = "accuracy" if direction == "maximize" else "loss"
    spec = StudySpec(
        name="digits",
        task="digits",
        space=Space.model_validate({name: PARAMETERS[name] for name in names}),
        objective=Objective(metric=metric, direction=direction),
        tuner=Plugin(name="optuna"),
        budget=Budget(trials=8, rounds_per_trial=tuned, final_rounds=3),
    )
    return StudyRecord(spec, state, NOW, NOW)


def trial(
    number: int,
    *values: float | None,
    state: TrialState = TrialState.COMPLETED,
    hyperparameters: dict[str, Value] | None = None,
) -> TrialRecord:
    return TrialRecord(number, state, hyperparameters or {"lr": 0.1}, values)


def round_of(number: int, index: int) -> RoundRecord:
    return RoundRecord(number, index, 1, b"", 0.5, {}, 1.0, ("a", "b"), 2, ("b", "c"), 2.0, NOW)


def made_up(record: StudyRecord, count: int, seed: int = 0) -> list[TrialRecord]:
    """Trials in every state, with missing, infinite and exploding values among them."""
    rng = np.random.default_rng(seed)
    states = [TrialState.COMPLETED, TrialState.PRUNED, TrialState.COMPLETED, TrialState.FAILED, TrialState.RUNNING]
    odd: list[float | None] = [None, math.nan, math.inf, 1e30]
    return [
        TrialRecord(
            number,
            states[number % len(states)],
            record.spec.space.sample(rng),
            tuple(
                odd[int(rng.integers(4))] if rng.random() < 0.15 else float(rng.random())
                for _ in range(int(rng.integers(0, 6)))
            ),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("names", [("lr",), tuple(PARAMETERS)], ids=["1 parameter", "10 parameters"])
@pytest.mark.parametrize(
    ("count", "direction"), [(0, "maximize"), (1, "minimize"), (8, "minimize"), (8, "maximize"), (100, "minimize")]
)
def test_any_study_can_be_drawn(
    tmp_path: Path, count: int, names: tuple[str, ...], direction: Literal["minimize", "maximize"]
) -> None:
    record = study(names, direction)
    path = tmp_path / "run.png"
    draw_study(path, record, made_up(record, count), [])
    height, width, _ = read(path).shape
    assert width == 1430
    assert 900 < height < 1500
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


def test_the_best_the_pruned_and_the_final_rounds_are_there_to_see(tmp_path: Path) -> None:
    plain, with_final = tmp_path / "plain.png", tmp_path / "final.png"
    trials = [trial(0, 0.1, 0.2, 0.3, 0.4, 0.5), trial(1, 0.1, 0.1, state=TrialState.PRUNED)]
    draw_study(plain, study(), trials, [])
    longer = replace(trials[0], values=(*trials[0].values, 0.6, 0.7, 0.8))
    draw_study(with_final, study(), [longer, trials[1]], [])
    shade = "#fef3ee"
    assert inked(read(plain), BEST.color) > 500
    assert inked(read(plain), shade) < 1_000  # the soft edge of the orange line
    assert inked(read(with_final), shade) > 10_000


def test_a_new_picture_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    draw_study(path, study(), [trial(0, 0.1)], [])
    before = path.read_bytes()
    draw_study(path, study(), [trial(0, 0.1), trial(1, 0.5, 0.6)], [])
    assert path.read_bytes() != before
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        draw_study(tmp_path / "nowhere" / "run.png", study(), [], [])


def test_several_threads_draw_at_once_and_alike(tmp_path: Path) -> None:
    record = study(tuple(PARAMETERS)[:4])
    trials = made_up(record, 8)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: draw_study(path, record, trials, []), paths))
    assert len({path.read_bytes() for path in paths}) == 1


def test_no_global_figure_registry_is_touched() -> None:
    code = "import sys, fedstep.server.report.picture; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def best_of(record: StudyRecord, *trials: TrialRecord) -> int | None:
    return next((course.trial.number for course in courses_of(record, trials) if course.look is BEST), None)


def test_the_trial_that_the_study_delivers_is_marked_the_best() -> None:
    trials = [trial(0, 0.5), trial(1, 0.7), trial(2, 0.99, state=TrialState.PRUNED)]
    assert best_of(study(), *trials) == 2  # complete or not
    trials[1] = replace(trials[1], details={"delivered": True})
    assert best_of(study(), *trials) == 1
    assert best_of(study(), trial(0, None)) is None


def test_the_final_rounds_of_the_best_trial_do_not_count_for_its_score() -> None:
    record = study(tuned=2)
    chosen = replace(trial(1, 0.6, 0.6, 0.2), details={"delivered": True})
    assert best_of(record, trial(0, 0.5, 0.7), chosen) == 1
    assert courses_of(record, [chosen])[0].score == 0.6
    untuned = replace(record, spec=record.spec.model_copy(update={"tuner": Plugin(name="fixed")}))
    assert courses_of(untuned, [chosen])[0].score == 0.2


def test_missing_and_infinite_values_are_no_points() -> None:
    (course,) = courses_of(study(), [trial(0, 0.1, None, math.nan, 0.4, math.inf, state=TrialState.FAILED)])
    assert course.points == ((1, 0.1), (4, 0.4))
    assert course.score == 0.4
    assert course.look is FAILED


def test_courses_stand_in_the_order_of_their_numbers() -> None:
    courses = courses_of(study(), [trial(2, 0.1), trial(0, 0.2), trial(1, 0.3)])
    assert [course.trial.number for course in courses] == [0, 1, 2]
    assert [course.look for course in courses] == [COMPLETED, BEST, COMPLETED]


def test_one_trial_that_blew_up_does_not_press_the_others_flat() -> None:
    values = [0.5 + 0.01 * number for number in range(20)]
    shown = ValueRange.of([*values, 1e9], values[:3], minimize=False)
    assert shown.low < 0.5
    assert 0.69 < shown.high < 3.0
    assert shown.clip(1e9) == shown.high
    assert shown.height(1e9) == 1.0


def test_all_of_the_best_trial_is_shown() -> None:
    shown = ValueRange.of([0.5] * 30 + [0.1, 0.9], [0.1, 0.9], minimize=False)
    assert shown.low < 0.1
    assert shown.high > 0.9


@pytest.mark.parametrize(
    ("values", "minimize", "log"),
    [([2.3, 0.1], True, True), ([2.3, 1.1], True, False), ([0.9, 0.1], False, False), ([2.3, -0.1], True, False)],
)
def test_losses_that_span_much_are_shown_on_a_log_scale(values: list[float], minimize: bool, log: bool) -> None:
    shown = ValueRange.of(values, [], minimize)
    assert shown.log is log
    assert shown.low < min(values)
    assert shown.high > max(values)
    assert 0 < shown.height(min(values)) < shown.height(max(values)) < 1


def test_equal_values_and_none_at_all_still_give_a_range() -> None:
    for values in ([], [0.0], [0.5] * 20, [-3.0] * 20):
        shown = ValueRange.of(values, [], minimize=True)
        assert shown.low < shown.high


def test_the_result_is_told_with_the_objective_first() -> None:
    result = StudyResult(b"", {"loss": 0.12345, "accuracy": 0.96}, held_out=True, model_path="m")
    record = replace(study(), result=result)
    assert outcome(record, None) == "accuracy 0.9600, loss 0.1235 on held-out data"
    record = replace(record, result=replace(result, held_out=False))
    assert outcome(record, None).endswith("on the evaluation cohort")


def test_without_a_result_the_best_trial_speaks() -> None:
    best = courses_of(study(), [trial(3, 0.5)])[0]
    assert outcome(study(state=StudyState.RUNNING), best) == "accuracy 0.5000 in trial 3, the best so far"
    assert outcome(study(state=StudyState.STOPPED), best) == "accuracy 0.5000 in trial 3"
    assert outcome(study(state=StudyState.RUNNING), None) == "no result yet"
    assert outcome(study(state=StudyState.FAILED), None) == "no result"


def test_the_best_hyperparameters_are_told_in_their_own_types() -> None:
    values: dict[str, Value] = {"lr": 0.0312345, "batch_size": 16, "nesterov": True, "optimizer": "sgd"}
    best = courses_of(study(), [trial(0, 0.5, hyperparameters=values)])[0]
    assert settings(best) == "with lr 0.0312  ·  batch_size 16  ·  nesterov true  ·  optimizer sgd"
    assert settings(None) == ""
    many: dict[str, Value] = {f"parameter_{number}": number for number in range(50)}
    long = settings(courses_of(study(), [trial(0, 0.5, hyperparameters=many)])[0])
    assert len(long) < 160
    assert long.endswith("…")


def test_the_cost_counts_clients_once_and_says_a_state_that_is_not_complete() -> None:
    rounds = [round_of(0, index) for index in range(3)]
    assert cost(study(), 1, rounds) == "digits  ·  1 trial  ·  3 rounds  ·  3 clients  ·  6 s"
    spent = replace(study(state=StudyState.STOPPED), seconds_spent=600.0)
    assert cost(spent, 2, rounds) == "digits  ·  2 trials  ·  3 rounds  ·  3 clients  ·  10 min  ·  stopped"
    assert cost(replace(study(), seconds_spent=4e4), 0, []).endswith("11.1 h")
