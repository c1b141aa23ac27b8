from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.spaces import spaces
from fedstep.common.space import Space
from fedstep.server.tuning.neighbourhood import client_names, clipped, draw, near, other_names


def space_of(**tables: Any) -> Space:
    return Space.model_validate(tables)


def many(space: Space, centre: dict[str, float], radius: float) -> list[dict[str, float]]:
    rng = np.random.default_rng(5)
    return [near(space, centre, radius, list(centre), rng) for _ in range(400)]


def test_a_log_range_moves_by_a_share_of_its_decades() -> None:
    # ε = 0.1 of four decades: lr within a factor of 10^0.4, as in FedEx's and FedPop's own experiments.
    space = space_of(lr={"low": 1e-4, "high": 1.0, "log": True})
    logs = [np.log10(space.from_unit(units)["lr"]) for units in many(space, {"lr": 0.5}, 0.1)]
    assert min(logs) >= -2.4
    assert max(logs) <= -1.6
    assert min(logs) < -2.35
    assert max(logs) > -1.65


def test_whole_numbers_move_to_their_neighbours_and_stay_alike_often() -> None:
    space = space_of(local_epochs={"low": 1, "high": 5})
    drawn = Counter(space.from_unit(units)["local_epochs"] for units in many(space, {"local_epochs": 0.5}, 0.1))
    assert set(drawn) == {2, 3, 4}
    assert min(drawn.values()) > 90


def test_numbers_to_choose_from_move_to_their_neighbours() -> None:
    space = space_of(batch_size={"choices": [8, 16, 32, 64, 128]})
    drawn = {space.from_unit(units)["batch_size"] for units in many(space, {"batch_size": 0.9}, 0.1)}
    assert drawn == {64, 128}


def test_choices_without_an_order_are_drawn_anew_with_the_chance_of_the_box() -> None:
    space = space_of(optimizer={"choices": ["sgd", "adam", "adamw"]})
    drawn = Counter(space.from_unit(units)["optimizer"] for units in many(space, {"optimizer": 0.1}, 0.1))
    # 0.2 · 2/3 of them are others.
    assert 0.08 < 1 - drawn["sgd"] / 400 < 0.19


def test_names_not_given_stay() -> None:
    space = space_of(lr={"low": 0.1, "high": 1.0}, server_lr={"low": 0.1, "high": 1.0})
    moved = near(space, {"lr": 0.3, "server_lr": 0.4}, 0.2, client_names(space), np.random.default_rng(1))
    assert moved["server_lr"] == 0.4
    assert moved["lr"] != 0.3
    assert (client_names(space), other_names(space)) == (("lr",), ("server_lr",))


def test_clipping_brings_back_into_the_box() -> None:
    space = space_of(
        lr={"low": 0.1, "high": 1.0}, local_epochs={"low": 1, "high": 5}, optimizer={"choices": ["sgd", "adam"]}
    )
    centre = {"lr": 0.5, "local_epochs": 0.5, "optimizer": 0.25}
    held = clipped(space, {"lr": 0.9, "local_epochs": 0.1, "optimizer": 0.75}, centre, 0.1, list(centre))
    assert held["lr"] == pytest.approx(0.6)
    assert space.from_unit(held)["local_epochs"] == 2
    assert held["optimizer"] == 0.75


@given(spaces(), st.floats(0.01, 1.0), st.integers(0, 2**32))
def test_what_is_near_a_point_is_a_point(space: Space, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = draw(space, rng)
    moved = near(space, centre, radius, list(centre), rng)
    space.validate_point(space.from_unit(moved))
    space.validate_point(space.from_unit(clipped(space, moved, draw(space, rng), radius, list(centre))))


@given(spaces(), st.floats(0.01, 0.5), st.integers(0, 2**32))
def test_clipping_leaves_what_was_drawn_in_the_box(space: Space, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centre = draw(space, rng)
    moved = near(space, centre, radius, list(centre), rng)
    held = clipped(space, moved, centre, radius, list(centre))
    assert space.from_unit(held) == space.from_unit(moved)
