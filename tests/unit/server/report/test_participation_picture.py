"""Who took part, as it is drawn below a study's picture."""

from pathlib import Path

import pytest
from unit.server.report import arms
from unit.server.report.drawn import inked, read
from unit.server.report.test_picture import study, trial

from fedstep.server.report.participation import Share
from fedstep.server.report.participation_picture import participation_height
from fedstep.server.report.picture import draw_study

TAKEN, LEFT_OUT, ASKED = "#1c7ed6", "#c92a2a", "#ced4da"


def shares(count: int, measured: bool = True) -> list[Share]:
    """Every fourth is asked for 20 trainings and delivers 2, the others 10; its data is harder."""
    return [
        Share(f"client $x^ {number}", 20, 2 if number % 4 == 0 else 20, 0, [2.0 if number % 4 == 0 else 0.9] * measured)
        for number in range(count)
    ]


def drawn(path: Path, found: list[Share]) -> Path:
    draw_study(path, study(), [trial(0, 0.1, 0.2)], [], found)
    return path


@pytest.mark.parametrize("count", [1, 2, 8, 24, 40, 300, 50_000])
@pytest.mark.parametrize("measured", [True, False])
def test_any_number_of_clients_can_be_drawn(tmp_path: Path, count: int, measured: bool) -> None:
    without = read(drawn(tmp_path / "without.png", []))
    picture = read(drawn(tmp_path / "run.png", shares(count, measured)))
    assert picture.shape[1] == without.shape[1]
    added = picture.shape[0] - without.shape[0]
    assert added == pytest.approx(130 * participation_height(shares(count, measured)), abs=1)
    assert 250 < added < 500


def test_what_was_taken_of_those_left_out_is_red_and_what_was_asked_in_vain_grey(tmp_path: Path) -> None:
    for count in (8, 300):
        uneven = read(drawn(tmp_path / "uneven.png", shares(count)))
        even = read(drawn(tmp_path / "even.png", [Share(f"c{number}", 20, 20) for number in range(count)]))
        assert inked(uneven, LEFT_OUT) > 1_000 > inked(even, LEFT_OUT)
        assert inked(uneven, ASKED) > 5 * inked(even, ASKED)
        assert inked(uneven, TAKEN) > 20_000


def test_one_whose_loss_is_far_from_the_others_does_not_press_them_flat(tmp_path: Path) -> None:
    found = shares(30)
    found[5].losses = [1e9]
    assert inked(read(drawn(tmp_path / "run.png", found)), TAKEN) > 20_000


def test_where_nobody_was_asked_nothing_is_drawn(tmp_path: Path) -> None:
    plain, idle = tmp_path / "plain.png", tmp_path / "idle.png"
    assert drawn(plain, []).read_bytes() == drawn(idle, [Share("a"), Share("b")]).read_bytes()


def test_it_stands_below_the_tree_of_a_step_wise_study_too(tmp_path: Path) -> None:
    heights = []
    for found in ([], shares(8)):
        path = tmp_path / f"{len(found)}.png"
        draw_study(path, arms.study(), arms.story(), [], found)
        heights.append(read(path).shape[0])
    assert heights[1] - heights[0] == pytest.approx(130 * participation_height(shares(8)), abs=1)
