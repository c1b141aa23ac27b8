"""Ray Tune's population-based training drives a federated training, over RunService.

A coordinator and its clients first, as in the README:

    fedstep coordinator
    fedstep client --task digits --partition 1/2 --threads 1 &
    fedstep client --task digits --partition 2/2 --threads 1

then

    python examples/ray_pbt.py [HOST:PORT]

A trial of Ray's is a run of the study: where a bad trial takes over a good one's model, the coordinator only moves a
name. When Ray is done the study is told to stop, and its best model lies where every study's does.
"""

import sys

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from fedstep.api import connect
from fedstep.common.spec import StudySpec
from fedstep.ray import FederatedRun

STUDY = StudySpec.model_validate(
    {
        "name": "ray-pbt",
        "task": "digits",
        "space": {"lr": {"low": 1e-3, "high": 0.5, "log": True}, "momentum": {"low": 0.0, "high": 0.95}},
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "tuner": {"name": "outside", "close_after": "5m"},
        "budget": {"rounds": 200},
    }
)


def main(address: str) -> None:
    """Creates the study, which goes on where it has not ended, has Ray drive it, and ends it with its best model."""
    with connect(address) as fedstep:
        study = fedstep.create(STUDY)
        if study.state in ("stopping", "stopped", "completed", "failed"):
            sys.exit(f"The study {STUDY.name} is {study.state}, and its runs are closed: rename it in {__file__}.")
        best = drive(address).get_best_result()
        study.stop()
        model = study.watch().best
    print(f"The best of Ray's trials at its end: accuracy {best.metrics['accuracy']:.4f} with {best.config}")
    print(f"The best step of all, which the study delivers: {model.value:.4f} with {model.hyperparameters}")


def drive(address: str) -> tune.ResultGrid:
    """Four trials of eight iterations; after every second one the worse half takes over from the better one."""
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,
        quantile_fraction=0.5,
        hyperparam_mutations={"lr": tune.loguniform(1e-3, 0.5), "momentum": tune.uniform(0.0, 0.95)},
    )
    return tune.Tuner(
        tune.with_parameters(FederatedRun, address=address, study=STUDY.name, rounds=2),
        param_space={"lr": tune.loguniform(1e-3, 0.5), "momentum": tune.uniform(0.0, 0.95)},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", num_samples=4, scheduler=scheduler, reuse_actors=True
        ),
        run_config=tune.RunConfig(stop={"training_iteration": 8}),
    ).fit()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7433")
