"""Ray Tune's searchers and schedulers as a tuner, by the tuners' own contract kits."""

from typing import Any, ClassVar

from contract.program_kit import ProgramKit
from contract.tuner_kit import SPACE, TunerKit

FLAT: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.9, "step": 0.3},
    "batch_size": {"low": 4, "high": 64, "log": True},
    "local_epochs": {"low": 1, "high": 3},
}


class TestOptunaSearch(TunerKit):
    tuner: ClassVar = {"name": "ray"}


class TestVariants(TunerKit):
    tuner: ClassVar = {"name": "ray", "searcher": "BasicVariantGenerator", "scheduler": "MedianStoppingRule"}


class TestHyperOptSearch(TunerKit):
    tuner: ClassVar = {"name": "ray", "searcher": "HyperOptSearch", "searcher_options": {"n_initial_points": 2}}
    space: ClassVar = {name: {k: v for k, v in table.items() if k != "when"} for name, table in SPACE.items()}


class TestBayesOptSearch(TunerKit):
    tuner: ClassVar = {
        "name": "ray",
        "searcher": "BayesOptSearch",
        "searcher_options": {"random_search_steps": 2},
        "scheduler": "FIFOScheduler",
    }
    space: ClassVar = FLAT


class TestPopulationBasedTraining(ProgramKit):
    tuner: ClassVar = {"name": "ray", "scheduler": "PopulationBasedTraining"}


class TestPB2(ProgramKit):
    tuner: ClassVar = {"name": "ray", "scheduler": "PB2"}
    space: ClassVar = FLAT


class TestHyperBand(ProgramKit):
    tuner: ClassVar = {"name": "ray", "scheduler": "HyperBandScheduler"}
