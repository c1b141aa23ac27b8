from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Annotation
from unit.server.report.arms import arm, study
from unit.server.report.drawn import PARAMETERS

from fedstep.server.report.courses import courses_of
from fedstep.server.report.page.charts import NARROW
from fedstep.server.report.page.parallel import draw_parallel


@pytest.mark.parametrize("seed", range(5))
def test_on_a_phone_no_word_lies_on_another_or_outside(seed: int) -> None:
    record = study(PARAMETERS)
    rng = np.random.default_rng(seed)
    trials = [arm(number, record.spec.space.sample(rng), float(10 ** rng.uniform(-3, 3))) for number in range(9)]
    figure = draw_parallel(record.spec.space, courses_of(record, trials), "loss", minimize=True, width=NARROW)
    words = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    boxes = [word.get_window_extent() for word in words]
    assert {word.get_text() for word in words} >= {"loss", "lr", "0.0001", "1", "sgd", "adamw"}
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
