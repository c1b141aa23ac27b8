"""Every built-in tuner against the kit."""

from typing import Any, ClassVar

from contract.tuner_kit import SPACE, TunerKit


class TestRandomTuner(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "random"}


class TestGridTuner(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "grid", "points": 2}
    seeded = False


class TestOptunaTpeMedian(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "optuna", "pruner_options": {"n_startup_trials": 2}}


class TestOptunaHyperband(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {
        "name": "optuna",
        "sampler": "RandomSampler",
        "pruner": "HyperbandPruner",
        "pruner_options": {"reduction_factor": 2},
    }


class TestOptunaQmc(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {
        "name": "optuna",
        "sampler": "QMCSampler",
        "sampler_options": {"scramble": True, "warn_independent_sampling": False},
        "pruner": "PatientPruner",
        "pruner_options": {"wrapped_pruner": {"name": "MedianPruner", "n_startup_trials": 1}, "patience": 1},
    }
    space: ClassVar[dict[str, Any]] = {name: SPACE[name] for name in ("lr", "optimizer", "local_epochs")}


class TestOptunaBruteForce(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "optuna", "sampler": "BruteForceSampler", "pruner": "NopPruner"}
    space: ClassVar[dict[str, Any]] = {
        "lr": {"low": 0.1, "high": 0.4, "step": 0.1},
        "optimizer": {"choices": ["sgd", "adam"]},
        "momentum": {"low": 0.0, "high": 0.5, "step": 0.5, "when": {"optimizer": ["sgd"]}},
    }
