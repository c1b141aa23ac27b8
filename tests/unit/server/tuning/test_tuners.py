"""The built-in tuners against the kit."""

from typing import Any, ClassVar

from contract.tuner_kit import TunerKit


class TestRandomTuner(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "random"}


class TestGridTuner(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "grid", "points": 2}
    seeded = False


class TestOptunaTpeMedian(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "optuna", "pruner_options": {"n_startup_trials": 2}}


class TestOptunaRandomHyperband(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {
        "name": "optuna",
        "sampler": "RandomSampler",
        "pruner": "HyperbandPruner",
        "pruner_options": {"reduction_factor": 2},
    }
