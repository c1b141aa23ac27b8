"""What Ray proposes, as points of a space."""

import numpy as np
import pytest

from fedstep.common.space import Space
from fedstep.ray.points import point_of

SPACE = Space.model_validate(
    {
        "lr": {"low": 1e-3, "high": 1.0, "log": True},
        "dropout": {"low": 0.0, "high": 0.5, "step": 0.1},
        "batch_size": {"low": 4, "high": 64},
        "width": {"low": 4, "high": 30, "step": 8},
        "optimizer": {"choices": ["sgd", "adam"]},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
    }
)
LEGAL = {"lr": 0.1, "dropout": 0.2, "batch_size": 8, "width": 12, "optimizer": "sgd", "momentum": 0.5}


@pytest.mark.parametrize(
    ("name", "asked", "taken"),
    [
        ("lr", 1.2, 1.0),
        ("lr", 1e-9, 1e-3),
        ("lr", np.float64(0.25), 0.25),
        ("batch_size", np.int64(76), 64),
        ("batch_size", 9.6, 10),
        ("width", 17, 20),
        ("width", np.int64(99), 28),
        ("dropout", 0.24, 0.2),
        ("dropout", 7.0, 0.5),
        ("optimizer", np.str_("adam"), "adam"),
    ],
)
def test_the_nearest_legal_value_is_taken(name: str, asked: object, taken: object) -> None:
    config = LEGAL | {name: asked, "not_in_the_space": 3}
    point = point_of(SPACE, config)
    assert point[name] == pytest.approx(taken) if isinstance(taken, float) else point[name] == taken
    assert SPACE.contains(point)


def test_what_does_not_exist_is_left_out() -> None:
    assert "momentum" not in point_of(SPACE, LEGAL | {"optimizer": "adam"})


def test_what_is_no_value_is_left_for_the_coordinator_to_refuse() -> None:
    assert point_of(SPACE, LEGAL | {"optimizer": "lion", "lr": float("nan")})["optimizer"] == "lion"
