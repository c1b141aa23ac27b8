"""Ray Tune drives a federated training over RunService: a real cluster, real clients, real rounds."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
from e2e.processes import Programs, connected, fedstep
from e2e.studies import write_study
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from unit.simulation.ray_cluster import ray_cluster

from fedstep.common.errors import InvalidInputError
from fedstep.ray import FederatedRun

POPULATION, ITERATIONS = 2, 3


def start(programs: Programs, folder: Path) -> str:
    """A coordinator, a client on real digits, and a study for Ray; its address."""
    _, address = programs.coordinator(folder / "data")
    client = programs.client(address, "c1", "--partition", "1/8")
    connected(client)
    file = write_study(
        folder / "study.toml",
        task="digits",
        space={"lr": {"low": 0.001, "high": 0.5, "log": True}},
        tuner={"name": "outside"},
        round={"min_clients": 1, "wait_for_clients": "60s"},
        evaluation={"held_out": False},
        budget={"rounds": 200},
    )
    detached = fedstep("study", "run", file, "--coordinator", address, "--detach")
    assert detached.code == 0, detached.err
    return address


def trials_of(address: str) -> list[dict[str, Any]]:
    return fedstep("study", "trials", "s", "--coordinator", address, "--json").json


@pytest.mark.slow
def test_population_based_training_finishes_a_study_and_its_forks_copy_no_model(
    programs: Programs, tmp_path: Path
) -> None:
    address = start(programs, tmp_path)
    with ray_cluster() as cluster:
        ray.init(address=cluster, log_to_driver=False)
        try:
            results = tune.Tuner(
                tune.with_parameters(FederatedRun, address=address, study="s"),
                param_space={"lr": tune.grid_search([0.001, 0.1])},
                tune_config=tune.TuneConfig(
                    metric="accuracy",
                    mode="max",
                    reuse_actors=True,
                    scheduler=PopulationBasedTraining(
                        time_attr="training_iteration",
                        perturbation_interval=1,
                        quantile_fraction=0.5,
                        hyperparam_mutations={"lr": tune.loguniform(0.001, 0.5)},
                        synch=True,
                    ),
                ),
                run_config=tune.RunConfig(
                    stop={"training_iteration": ITERATIONS}, storage_path=str(tmp_path / "ray"), verbose=0
                ),
            ).fit()
        finally:
            ray.shutdown()
    assert not results.errors
    assert len(results) == POPULATION
    best = results.get_best_result().metrics
    assert best is not None
    trials = trials_of(address)
    # An exploit: an arm of one run goes on from an arm of another.
    run_of = {trial["number"]: trial["phase"] for trial in trials}
    exploits = [t for t in trials for parent in t.get("parents", []) if run_of[parent] != t["phase"]]
    assert exploits
    # Every file of a model is what a round has made: no fork and no checkpoint has copied one.
    rounds = sum(trial["rounds"] for trial in trials)
    made = len({trial["number"] for trial in trials})
    assert rounds == made >= POPULATION * ITERATIONS
    assert len(list((tmp_path / "data" / "models").glob("*/*.bin"))) <= rounds
    checkpoints = list((tmp_path / "ray").rglob("fedstep_run.json"))
    assert checkpoints
    assert all(path.stat().st_size < 200 for path in checkpoints)
    assert best["arm"] in run_of
    stopped = fedstep("study", "stop", "s", "--coordinator", address, "--json").json[-1]
    assert stopped["state"] in ("STUDY_STATE_STOPPING", "STUDY_STATE_STOPPED")


@pytest.mark.slow
def test_save_and_load_are_fork_and_restore(programs: Programs, tmp_path: Path) -> None:
    address = start(programs, tmp_path)
    named = {"address": address, "study": "s"}
    one, other = (tune.with_parameters(FederatedRun, **named)(config={"lr": lr}) for lr in (0.1, 7.0))
    first = one.train()
    checkpoint = one.save(str(tmp_path / "checkpoint"))
    second = one.train()
    assert (first["rounds_behind"], second["rounds_behind"]) == (1, 2)
    assert json.loads((tmp_path / "checkpoint" / "fedstep_run.json").read_text())["step"] == 1
    other.train()
    other.restore(checkpoint)
    assert other.reset({"lr": 0.1})
    other.restore(checkpoint)
    assert other.train()["model_sha256"] == second["model_sha256"]
    one.restore(checkpoint)
    assert one.train()["model_sha256"] == second["model_sha256"]
    points = [trial["hyperparameters"]["lr"] for trial in trials_of(address)]
    # 7.0 is past the range's end.
    assert [value for point in points for value in point.values()] == [0.1, 0.1, 0.5, 0.1, 0.1]
    one.stop()
    other.stop()


def test_a_trainable_without_its_study_says_how_it_is_given() -> None:
    with pytest.raises(InvalidInputError, match="with_parameters"):
        FederatedRun(config={"lr": 0.1})
