"""Studies that tune what changes the model: by trials, in a step-wise screen, or not at all."""

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.common.errors import InvalidInputError
from fedstep.server.storage.base import StudyState
from fedstep.simulation.run import Federation, simulate

CLIENTS = Federation(9)
WIDTH = {"width": {"choices": [4, 6, 9]}, "lr": {"low": 0.05, "high": 0.5, "log": True}}


def widths(found: object) -> set[object]:
    return {trial.hyperparameters["width"] for trial in found.trials}  # type: ignore[attr-defined]


def test_every_trial_has_a_model_of_its_own() -> None:
    found = simulate(study(space=WIDTH, tuner={"name": "grid", "points": 1}, budget={"trials": 3}), Clouds(), CLIENTS)
    assert found.record.state is StudyState.COMPLETED
    assert widths(found) == {4, 6, 9}
    assert found.best is not None
    assert found.manifest is not None
    assert found.manifest.tensors[0].shape == (found.best.hyperparameters["width"], 4)


def test_a_step_wise_study_is_refused_unless_its_screen_alone_chooses() -> None:
    budget = {"rounds": 60}
    with pytest.raises(InvalidInputError, match=r"space\.width: changes the model"):
        simulate(study(space=WIDTH, tuner={"name": "stepwise"}, budget=budget), Clouds(), CLIENTS)
    screened = {"name": "stepwise", "screen_only": ["width"], "use_probe": False}
    found = simulate(study(space=WIDTH, tuner=screened, budget=budget), Clouds(), CLIENTS)
    assert found.record.state is StudyState.COMPLETED
    assert len(widths(found)) > 1
    assert found.best is not None
    assert found.manifest is not None
    assert found.manifest.tensors[0].shape == (found.best.hyperparameters["width"], 4)
    assert all(trial.message == "" for trial in found.trials)
