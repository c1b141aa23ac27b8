from typing import Any

import numpy as np
import pytest

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import ProposeContext
from fedstep.server.tuning.registry import create_tuner

SPACE = {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "optimizer": {"choices": ["sgd", "adam"]}}


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate({"name": "a", "task": "digits", "space": SPACE} | changes)


def test_a_random_arm_depends_on_the_seed_and_its_number_alone() -> None:
    tuner = create_tuner(study(seed=3, tuner={"name": "random"}), "sqlite://")
    together = tuner.propose(ProposeContext(slots=5, next_number=0))
    assert tuner.propose(ProposeContext(slots=1, next_number=3)) == [together[3]]
    assert len({arm.hyperparameters["lr"] for arm in together}) == 5


def test_random_search_covers_a_log_range_evenly() -> None:
    tuner = create_tuner(study(tuner={"name": "random"}), "sqlite://")
    arms = tuner.propose(ProposeContext(slots=600, next_number=0))
    decades = np.histogram([np.log10(float(arm.hyperparameters["lr"])) for arm in arms], bins=[-3, -2, -1, 0])[0]
    assert decades.min() > 150


def test_a_grid_gives_every_point_once_and_ends() -> None:
    tuner = create_tuner(study(tuner={"name": "grid", "points": 2}), "sqlite://")
    arms = tuner.propose(ProposeContext(slots=3, next_number=0)) + tuner.propose(ProposeContext(3, 3))
    assert [arm.hyperparameters for arm in arms] == [
        {"lr": 1e-3, "optimizer": "sgd"},
        {"lr": 1e-3, "optimizer": "adam"},
        {"lr": 1.0, "optimizer": "sgd"},
        {"lr": 1.0, "optimizer": "adam"},
    ]
    assert tuner.propose(ProposeContext(slots=3, next_number=4)) == []


@pytest.mark.parametrize("name", ["random", "grid"])
def test_nothing_is_stored(name: str) -> None:
    create_tuner(study(tuner={"name": name}), "no://database").propose(ProposeContext(slots=1, next_number=0))
