"""What a round is expected to take: from paces alone, in any thread, as it stood when it was asked for."""

from collections.abc import Sequence

import numpy as np
import pytest
from e2e.tiny import MANIFEST, Tiny
from unit.server.coordination.test_cohorts import NAMES, Study, paces

from fedstep.server.coordination.pricing import MOST_CLIENTS, Experience, PriceList
from fedstep.server.selection.pace import Paces
from fedstep.server.storage.base import PaceRecord

STEP_S = 0.5


def alike(names: Sequence[str], step_s: float = STEP_S) -> list[PaceRecord]:
    """Everyone's: half a second for a step on 16 samples, of which each has 32."""
    made = Paces()
    made.fit(1)
    for _ in range(20):
        made.stepped(0, 16, [1000 * step_s])
    return [PaceRecord(name, {"task": "tiny", **made.kept(0)}) for name in names]


async def prices(study: Study, names: Sequence[str] = NAMES, experience: Experience | None = None) -> PriceList:
    await study.join(names)
    found = study.cohorts.prices(Tiny(), experience or Experience())
    assert found is not None
    return found


@pytest.mark.parametrize("selector", ["random", "all", "oort", "power_of_choice", "deadline"])
async def test_it_is_the_steps_times_the_pace(selector: str) -> None:
    found = await prices(Study(selector, alike(NAMES)))
    whole = found.round_s({})
    assert whole == pytest.approx(2 * STEP_S, rel=0.05)
    assert found.round_s({}) == whole
    assert found.round_s({"local_epochs": 3}) == pytest.approx(6 * STEP_S, rel=0.05)
    assert found.round_s({"batch_size": 32}) == pytest.approx(STEP_S * 2**0.5, rel=0.05)  # a size never tried


async def test_while_no_pace_is_known_there_is_none() -> None:
    study = Study("deadline")
    assert study.cohorts.prices(Tiny(), Experience()) is None  # nobody is there
    assert (await prices(study)).round_s({}) is None


async def test_the_deadline_bounds_it_whoever_sets_it() -> None:
    found = await prices(Study("random", alike(NAMES)))
    assert found.round_s({"local_epochs": 1000}) == 60  # the study's own
    assert found.round_s({"local_epochs": 1000, "deadline_s": 7.0}) == 7


async def test_more_clients_take_longer_where_they_differ() -> None:
    """The later by name are the slower, up to 36 times."""
    found = await prices(Study("random", paces(NAMES)))
    few, many = found.round_s({"cohort_size": 2}), found.round_s({"cohort_size": 30})
    assert few is not None
    assert many is not None
    assert many > 1.5 * few


async def test_a_deadline_selector_prices_the_round_that_it_would_make() -> None:
    """Two in five are in time, so it is far below what the slowest take."""
    by_deadline = (await prices(Study("deadline", paces(NAMES)))).round_s({"local_epochs": 60, "cohort_size": 30})
    by_chance = (await prices(Study("random", paces(NAMES)))).round_s({"local_epochs": 60, "cohort_size": 30})
    assert by_deadline is not None
    assert by_chance is not None
    assert by_deadline < by_chance / 2


async def test_what_is_learnt_later_does_not_change_it() -> None:
    study = Study("deadline", alike(NAMES))
    found = await prices(study)
    before = found.round_s({})
    learnt = study.paces._paces
    for name in NAMES:
        for _ in range(20):
            learnt.stepped(study.fleet.member(name).row, 16, [1000 * 8 * STEP_S])
    assert found.round_s({}) == before
    assert before is not None
    later = (await prices(study, [])).round_s({})
    assert later is not None
    assert later > 3 * before


async def test_many_clients_are_stood_for_by_some() -> None:
    names = [f"n{number:05}" for number in range(3 * MOST_CLIENTS)]
    found = await prices(Study("deadline", alike(names)), names)
    assert len(found.candidates) == MOST_CLIENTS
    assert found.round_s({"cohort_size": len(names)}) == pytest.approx(2 * STEP_S, rel=0.05)


async def test_what_rounds_took_beside_the_prediction_is_learnt() -> None:
    experience = Experience()
    experience.measure_s = 0.25
    for _ in range(5):
        experience.trained(1.0, 1.5)
    found = await prices(Study("random", alike(NAMES)), experience=experience)
    assert found.predicted_s({}) == pytest.approx(2 * STEP_S, rel=0.05)
    assert found.round_s({}) == pytest.approx(1.5 * 2 * STEP_S + 0.25, rel=0.05)


def test_a_round_that_was_held_up_counts_as_four_times_what_was_predicted() -> None:
    experience = Experience()
    experience.trained(None, 3.0)
    assert experience.factor == 1.0
    experience.trained(1.0, 1e6)
    assert experience.factor == 4.0
    for _ in range(40):
        experience.trained(1.0, 1.0)
    assert experience.factor == pytest.approx(1.0, abs=0.01)


def test_a_copy_of_paces_predicts_the_same() -> None:
    made = Paces()
    made.fit(6)
    for row in range(6):
        made.stepped(row, 16, [10.0 * (1 + row)])
        made.moved(row, "download", 10**6, 1.0 + row)
    rows = np.array([4, 1])
    copied = made.of(rows).predict(np.arange(2), 5, 8, MANIFEST.payload_bytes, 100)
    mine = made.predict(rows, 5, 8, MANIFEST.payload_bytes, 100)
    assert copied.log_time == pytest.approx(mine.log_time)
    assert copied.beside_s == pytest.approx(mine.beside_s)
