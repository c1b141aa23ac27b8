"""Hyper-parameters that change the model: found by building, refused where configurations share their weights."""

from typing import Any

import pytest
from torch import nn
from unit.simulation.kit import Clouds, study

from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.coordination.structure import check_structure

WIDTH = {"width": {"low": 4, "high": 9}, "lr": {"low": 0.01, "high": 0.5}}


class Counted(Clouds):
    """Knows how many models were built; has a hyper-parameter that changes none, and one that exists for some."""

    defaults = {**Clouds.defaults, "slope": 0.1, "kind": "plain", "depth": 0}  # noqa: RUF012

    def __init__(self) -> None:
        self.built: list[Hyperparameters] = []

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        self.built.append(hyperparameters)
        if hyperparameters["kind"] not in ("plain", "deep"):
            raise KeyError(hyperparameters["kind"])
        depth = int(hyperparameters["depth"]) if hyperparameters["kind"] == "deep" else 0
        width = int(hyperparameters["width"])
        middle = [nn.Linear(width, width) for _ in range(depth)]
        return nn.Sequential(
            nn.Linear(4, width), nn.LeakyReLU(float(hyperparameters["slope"])), *middle, nn.Linear(width, 3)
        )


def refusal(tuner: dict[str, Any], space: dict[str, Any], **more: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        check_structure(study(tuner=tuner, space=space, **more), Counted())
    return caught.value


@pytest.mark.parametrize("name", ["optuna", "random", "grid", "fixed"])
def test_tuners_that_build_a_model_for_each_configuration_may_change_it(name: str) -> None:
    check_structure(study(tuner={"name": name}, space=WIDTH), Counted())


@pytest.mark.parametrize("name", ["stepwise", "fedex", "population", "outside"])
def test_tuners_that_share_weights_are_told_so_in_one_sentence(name: str) -> None:
    error = refusal({"name": name}, WIDTH)
    assert [violation.field for violation in error.violations] == ["space.width"]
    said = error.message
    assert "\n" not in said
    assert said.startswith("space.width: changes the model (0.weight is [4, 4] instead of [9, 4])")
    assert f"under the tuner {name} configurations go on from one another's weights" in said
    assert "fix width in [hyperparameters], or take a tuner by trials, such as optuna" in said
    assert ("screen_only" in said) is (name == "stepwise")


def test_so_is_a_population_of_rays_and_no_other_scheduler_of_it() -> None:
    said = refusal({"name": "ray", "scheduler": "PopulationBasedTraining"}, WIDTH).message
    assert "under the tuner ray configurations go on from one another's weights" in said
    for scheduler in ("AsyncHyperBandScheduler", "HyperBandScheduler"):
        check_structure(study(tuner={"name": "ray", "scheduler": scheduler}, space=WIDTH), Counted())


def test_a_width_that_only_some_networks_have_is_found() -> None:
    space = {"kind": {"choices": ["deep", "plain"]}, "depth": {"low": 1, "high": 2}}
    error = refusal({"name": "stepwise", "screen_only": ["kind"], "use_probe": False}, space)
    assert [violation.field for violation in error.violations] == ["space.depth"]


def test_the_screen_may_choose_what_it_alone_chooses_where_nobody_probes_before() -> None:
    alone = {"name": "stepwise", "screen_only": ["width"]}
    assert "width" in refusal(alone, WIDTH).message
    check_structure(study(tuner={**alone, "use_probe": False}, space=WIDTH), Counted())


def test_a_schedule_may_not_change_it_from_stage_to_stage() -> None:
    def stages(*widths: int) -> dict[str, Any]:
        return {"name": "schedule", "stages": [{"rounds": 2, "hyperparameters": {"width": width}} for width in widths]}

    check_structure(study(tuner=stages(5, 5), space=WIDTH), Counted())
    assert "under the tuner schedule" in refusal(stages(5, 6), WIDTH).message


def test_what_leaves_the_layout_alone_is_tuned_by_everybody() -> None:
    check_structure(study(tuner={"name": "stepwise"}, space={"slope": {"low": 0.0, "high": 0.5}}), Counted())


def test_a_parameter_is_looked_at_where_it_exists() -> None:
    conditional = {
        "kind": {"choices": ["plain", "deep"]},
        "depth": {"low": 0, "high": 2, "when": {"kind": "deep"}},
    }
    error = refusal({"name": "stepwise"}, conditional)
    # `kind` alone, at the middle of `depth`, and `depth` under the only kind that has one.
    assert [violation.field for violation in error.violations] == ["space.kind", "space.depth"]


@pytest.mark.parametrize("tuner", ["random", "stepwise"])
def test_a_model_that_cannot_be_built_is_refused_before_anything_starts(tuner: str) -> None:
    error = refusal({"name": tuner}, {"kind": {"choices": ["plain", "depe"]}})
    assert error.violations[0].field == "space.kind"
    assert 'kind = "depe"' in error.message
    error = refusal({"name": tuner}, {"lr": {"low": 0.1, "high": 0.5}}, hyperparameters={"kind": "depe"})
    assert error.violations[0].field == "hyperparameters"
    assert "the task clouds builds no model with" in error.message
    assert "KeyError: 'depe'" in error.message


def test_nothing_is_built_where_no_hyperparameter_of_the_tasks_own_is_named() -> None:
    task = Counted()
    check_structure(study(tuner={"name": "stepwise"}), task)
    assert task.built == []
    check_structure(study(tuner={"name": "stepwise"}, hyperparameters={"width": 5}), task)
    assert [values["width"] for values in task.built] == [5]
