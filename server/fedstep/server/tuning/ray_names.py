"""What of Ray Tune can be named in a study file; nothing of Ray is imported."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedstep.common.spec import StudySpec


@dataclass(frozen=True)
class RayPart:
    """A class of Ray Tune's.

    Attributes:
        module: Where it is.
        package: What it needs beside Ray, as pip calls it; "" for nothing.
        imported: The same as Python calls it.
    """

    module: str
    package: str = ""
    imported: str = ""


VARIANTS = "BasicVariantGenerator"
"""Ray's own random search."""

SEARCHERS: Mapping[str, RayPart] = {
    "OptunaSearch": RayPart("ray.tune.search.optuna"),
    "HyperOptSearch": RayPart("ray.tune.search.hyperopt", "hyperopt", "hyperopt"),
    "BayesOptSearch": RayPart("ray.tune.search.bayesopt", "bayesian-optimization<2", "bayes_opt"),
    VARIANTS: RayPart("fedstep.server.tuning.ray_variants"),
}
"""Searchers by the names of their classes."""

SCHEDULERS: Mapping[str, RayPart] = {
    "FIFOScheduler": RayPart("ray.tune.schedulers"),
    "AsyncHyperBandScheduler": RayPart("ray.tune.schedulers"),
    "ASHAScheduler": RayPart("ray.tune.schedulers"),
    "HyperBandScheduler": RayPart("ray.tune.schedulers"),
    "MedianStoppingRule": RayPart("ray.tune.schedulers"),
    "PopulationBasedTraining": RayPart("ray.tune.schedulers"),
    "PB2": RayPart("ray.tune.schedulers.pb2", "scikit-learn", "sklearn"),
}
"""Schedulers by the names of their classes."""

POPULATIONS = frozenset({"PopulationBasedTraining", "PB2"})
"""Schedulers whose trials take over one another's models."""

PAUSING = POPULATIONS | {"HyperBandScheduler"}
"""Schedulers that have a trial wait for others: their arms are stretches of trials."""


def scheduler_of(spec: StudySpec) -> str:
    """The scheduler that a study names under the tuner `ray`; "" under another tuner."""
    return str(spec.tuner.options.get("scheduler", "")) if spec.tuner.name == "ray" else ""
