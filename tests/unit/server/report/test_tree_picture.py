from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from unit.server.report.arms import NOW, arm, story, study
from unit.server.report.drawn import PARAMETERS, inked, read

from fedstep.server.report.courses import BEST
from fedstep.server.report.lineage import Tree
from fedstep.server.report.picture import draw_study
from fedstep.server.report.tree_picture import Band, bands_of
from fedstep.server.report.tree_rows import draw_rows, rows_height
from fedstep.server.storage.base import RoundRecord, StudyRecord, TrialRecord, TrialState


def made_up(record: StudyRecord, count: int, seed: int = 0) -> list[TrialRecord]:
    """A tree grown at random: every state, unmeasured and exploding arms, means, and conditionals that come and go."""
    rng = np.random.default_rng(seed)
    trials: list[TrialRecord] = []
    for number in range(count):
        parents = tuple(sorted({int(rng.integers(number)) for _ in range(int(rng.integers(0, 3)))})) if number else ()
        first = trials[parents[0]].rounds_behind if parents else 0
        state = [TrialState.COMPLETED, TrialState.COMPLETED, TrialState.FAILED, TrialState.RUNNING][number % 4]
        values = [None if rng.random() < 0.3 else float(rng.random() * 10.0 ** rng.integers(-1, 2)) for _ in range(3)]
        phase = ["screen", "advance", "fork", "settle", ""][int(rng.integers(5))]
        point = record.spec.space.sample(rng)
        trials.append(arm(number, point, *values, parents=parents, first=first, state=state, phase=phase))
    return trials


@pytest.mark.parametrize("names", [("lr",), tuple(PARAMETERS)], ids=["1 parameter", "10 parameters"])
@pytest.mark.parametrize(("count", "metric"), [(1, "loss"), (8, "accuracy"), (150, "loss")])
def test_any_tree_can_be_drawn(tmp_path: Path, count: int, names: tuple[str, ...], metric: str) -> None:
    record = study({name: PARAMETERS[name] for name in names}, metric)
    path = tmp_path / "run.png"
    draw_study(path, record, made_up(record, count), [])
    height, width, _ = read(path).shape
    assert width == 1430
    assert height == pytest.approx(130 * (6.04 + rows_height(record.spec.space, made_up(record, count))), abs=2)
    assert [file.name for file in tmp_path.iterdir()] == ["run.png"]


def test_a_story_shows_its_lineage_its_adoption_and_what_was_gone_back_on(tmp_path: Path) -> None:
    told, dull = tmp_path / "told.png", tmp_path / "dull.png"
    rounds = [RoundRecord(1, 0, 1, b"", 2.0, {}, 1.0, ("a",), 1, ("b",), 2.0, NOW)]
    draw_study(told, study(), story(), rounds)
    draw_study(dull, study(), [story()[1]], rounds)
    adopted, rewound = "#2b8a3e", "#c92a2a"
    assert inked(read(told), BEST.color) > 2000
    assert inked(read(told), adopted) > inked(read(dull), adopted) + 50
    assert inked(read(told), rewound) > inked(read(dull), rewound) + 5


def test_arms_without_a_value_still_give_a_picture(tmp_path: Path) -> None:
    draw_study(tmp_path / "run.png", study(), [arm(0, 0.1, None, None, phase="screen")], [])
    draw_study(tmp_path / "none.png", study(), [arm(0, 0.1, phase="screen", state=TrialState.RUNNING)], [])
    assert inked(read(tmp_path / "run.png"), "#7b8794") > 0


def test_rows_show_all_that_goes_on_beside_the_delivered_line() -> None:
    """An arm of another beginning that keeps its parent's value lies on no line that is drawn already."""
    trials = [
        arm(0, 0.1, 1.0, 0.9),
        arm(1, 0.1, 0.8, 0.7, parents=(0,), first=2),
        arm(2, 0.5, 2.0, 1.9),
        arm(3, 0.5, 1.8, 1.7, parents=(2,), first=2),
        arm(4, 0.1, 0.8, 0.8, parents=(0,), first=2),
    ]
    tree = Tree(trials, 1)
    (row,) = draw_rows(Figure(), study().spec.space, tree, tree.branches, (0.0, 0.0))
    lines = [one for one in row.collections if isinstance(one, LineCollection)]
    faint = [np.asarray(segment).tolist() for one in lines for segment in one.get_segments()]
    assert sorted(faint) == [[[0.0, 0.5], [2.0, 0.5]], [[2.0, 0.5], [4.0, 0.5]]]


def test_rows_show_an_incumbent_that_lost_with_the_value_that_it_kept() -> None:
    trials = [arm(0, 0.1, 1.0, 0.9), arm(1, 0.5, 0.8, 0.7, parents=(0,), first=2)]
    tree = Tree([*trials, arm(2, 0.1, 0.9, 0.9, parents=(0,), first=2)], 1)
    (row,) = draw_rows(Figure(), study().spec.space, tree, tree.branches, (0.0, 0.0))
    lines = [one for one in row.collections if isinstance(one, LineCollection)]
    faint = [np.asarray(segment).tolist() for one in lines for segment in one.get_segments()]
    assert faint == [[[2.0, 0.1], [4.0, 0.1]]]


def test_a_value_that_is_none_of_the_choices_has_its_place_after_them(tmp_path: Path) -> None:
    parameter = {"choices": ["sgd", "adam"]}
    trials = [arm(0, {"optimizer": value}, 1.0) for value in ("lion", "sgd")]
    draw_study(tmp_path / "run.png", study({"optimizer": parameter}), trials, [])
    assert inked(read(tmp_path / "run.png"), BEST.color) > 0


def test_phases_follow_one_another_along_the_lineage() -> None:
    bands = bands_of(Tree(story(), 12))
    assert bands == [Band("screen", 0, 2), Band("step-wise", 2, 8), Band("settle", 8, 10)]


def test_phases_that_change_all_the_time_are_left_out() -> None:
    trials = [arm(k, 0.1, 1.0, parents=(k - 1,) if k else (), first=k, phase=f"p{k % 2}") for k in range(9)]
    assert bands_of(Tree(trials, 8)) == []
    assert bands_of(Tree(trials[:3], 2)) == [Band("p0", 0, 1), Band("p1", 1, 2), Band("p0", 2, 3)]


def test_several_threads_draw_at_once_and_alike(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: draw_study(path, study(), story(), []), paths))
    assert len({path.read_bytes() for path in paths}) == 1
