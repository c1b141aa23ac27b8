import math

import numpy as np
import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.simulation.cli import simulate
from fedstep.simulation.cli_types import Finite
from fedstep.simulation.speed import Pace, SpeedModel


def test_speeds_are_log_normal_around_the_median_client() -> None:
    paces = SpeedModel(step_ms=8, sample_ms=0.25, bytes_per_s=1e6, spread=0.7).draw(4000, seed=1)
    logs = np.log([pace.step_ms for pace in paces])
    assert np.median(logs) == pytest.approx(np.log(8), abs=0.05)
    assert logs.std() == pytest.approx(0.7, rel=0.05)
    ways = np.log([pace.bytes_per_s for pace in paces])
    assert abs(np.corrcoef(logs, ways)[0, 1]) < 0.05
    assert {round(pace.step_ms / pace.sample_ms, 6) for pace in paces} == {32.0}


def test_the_same_seed_draws_the_same_speeds() -> None:
    assert SpeedModel().draw(5, 1) == SpeedModel().draw(5, 1) != SpeedModel().draw(5, 2)


def test_without_a_spread_all_are_the_median_client() -> None:
    assert set(SpeedModel(spread=0).draw(3, 1)) == {Pace(5.0, 0.5, 2e6)}


@pytest.mark.parametrize("wrong", [{"spread": -1.0}, {"spread": 1e9}, {"bytes_per_s": 0.0}, {"step_ms": float("nan")}])
def test_an_impossible_model_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        SpeedModel(**wrong).draw(2, 0)


def test_the_widest_spread_that_a_command_takes_is_a_legal_model() -> None:
    (option,) = [option for option in simulate.params if option.name == "speed_spread"]
    assert isinstance(option.type, Finite)
    most = option.type.most
    assert all(math.isfinite(pace.bytes_per_s) for pace in SpeedModel(spread=most).draw(1000, 0))
    with pytest.raises(InvalidInputError, match="from 0 to 5"):
        SpeedModel(spread=most + 0.1).draw(2, 0)


def test_a_pace_prices_work() -> None:
    pace = Pace(step_ms=4, sample_ms=0.5, bytes_per_s=1000)
    assert pace.step_s(16) == pytest.approx(0.012)
    assert pace.evaluation_s(16) == pytest.approx(0.004)
    assert pace.transfer_s(500) == 0.5
