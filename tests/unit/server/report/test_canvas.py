from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.text import Annotation
from unit.full_disk import full_disk

from fedstep.server.report.canvas import EndLabel, add_axes, label_ends, new_figure, save


def written(*labels: EndLabel, rounds: int = 60) -> list[Annotation]:
    """The labels that are written, in axes of so many rounds."""
    axes = add_axes(new_figure(6.0), 1.0, 1.0, 9.0, 4.0)
    axes.set_xlim(0.5, rounds + 0.5)
    label_ends(axes, labels)
    return [found for found in axes.texts if isinstance(found, Annotation)]


def label(number: int, at: int, height: float = 0.5) -> EndLabel:
    return EndLabel(str(number), at, height, "#1c7ed6")


def test_no_label_covers_another_where_lines_end_in_rounds_close_to_each_other() -> None:
    labels = written(*(label(number, 20 + number % 9, 0.3 + 0.01 * number) for number in range(40)))
    boxes = [found.get_window_extent() for found in labels]
    assert len(boxes) > 5
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]


def test_the_first_ones_have_precedence_and_who_has_room_is_labelled() -> None:
    assert [found.get_text() for found in written(label(7, 20), label(8, 21), rounds=120)] == ["7"]
    assert [found.get_text() for found in written(label(7, 2), label(8, 3), rounds=8)] == ["7", "8"]
    assert [found.get_text() for found in written(label(7, 20), label(8, 20, 0.6))] == ["7", "8"]


def test_on_a_full_disk_a_picture_leaves_nothing_and_the_old_one_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "study.png"
    path.write_bytes(b"the old one")
    with full_disk(), pytest.raises(OSError, match="too large"):
        save(new_figure(2.0), path)
    assert [found.name for found in tmp_path.iterdir()] == ["study.png"]
    assert path.read_bytes() == b"the old one"
