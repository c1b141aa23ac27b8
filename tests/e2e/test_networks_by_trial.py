"""Hyper-parameters that change the model: a trial each builds its own; under a step-wise tuner they are refused."""

from pathlib import Path

import numpy as np
import pytest
from e2e.processes import Programs, clients_of, connected, fedstep
from e2e.studies import write_study

SPACE = {
    "model": {"choices": ["mlp", "small_cnn"]},
    "hidden": {"choices": [8, 24]},
}


@pytest.fixture
def writers(tmp_path: Path) -> Path:
    """Sixty digits of six writers."""
    rng = np.random.default_rng(0)
    path = tmp_path / "writers.npz"
    images = rng.integers(0, 256, (60, 28, 28), np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 10, writer_ids=np.arange(60) // 10)
    return path


def test_networks_are_tuned_by_trials_and_refused_step_by_step(
    programs: Programs, tmp_path: Path, writers: Path
) -> None:
    own = ("--data", writers, "--option", "held_out_writers=2")
    _, address = programs.coordinator(tmp_path / "data", *own)
    clients = [programs.client(address, f"c{i}", "--partition", f"{i}/2", *own, task="mnist-writers") for i in (1, 2)]
    settings = {"task": "mnist-writers", "space": SPACE, "round": {"min_clients": 2}}

    steps = write_study(tmp_path / "steps.toml", name="steps", **settings, tuner={"name": "stepwise"})
    refused = fedstep("study", "run", steps, "--coordinator", address)
    assert refused.code == 2
    said = refused.err.strip().splitlines()
    assert len(said) == 2, refused.err  # one sentence for each of the two that change the model
    for line, name in zip(said, ("model", "hidden"), strict=True):
        assert f"space.{name}: changes the model" in line
        assert f"tuner stepwise configurations go on from one another's weights: fix {name} in" in line

    connected(*clients)
    trials = write_study(
        tmp_path / "trials.toml",
        name="trials",
        **settings,
        tuner={"name": "grid"},
        budget={"trials": 4, "rounds_per_trial": 1},
    )
    ran = fedstep("study", "run", trials, "--coordinator", address, "--json")
    assert ran.code == 0, ran.err
    shown = fedstep("study", "trials", "trials", "--coordinator", address, "--json").json
    assert {trial["state"] for trial in shown} == {"TRIAL_STATE_COMPLETED"}
    points = [trial["hyperparameters"] for trial in shown]
    tried = {(*point["model"].values(), *point["hidden"].values()) for point in points}
    assert len(tried) == 4  # another model each
    assert {name for name, _ in tried} == {"mlp", "small_cnn"}
    assert ran.json[-1]["result"]["held_out"] is True  # the best one's own model was built again, and measured
    assert not any(int(client.get("faults", 0)) for client in clients_of(address).values())
