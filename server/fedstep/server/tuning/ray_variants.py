"""Ray's own random search as a searcher: it is a part of its controller there."""

from typing import Any

import numpy as np
from ray.tune.search import Searcher
from ray.tune.search.variant_generator import generate_variants


class BasicVariantGenerator(Searcher):
    """Draws every configuration from the space by Ray's variant generator; learns nothing.

    Args:
        metric: Is not read.
        mode: Is not read.
        random_state: The seed.
    """

    def __init__(self, metric: str | None = None, mode: str | None = None, random_state: int = 0) -> None:
        super().__init__(metric=metric, mode=mode)
        self._rng = np.random.RandomState(random_state)
        self._space: dict[str, Any] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Sets the space, in Ray's domains."""
        self._space = config
        return True

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """One more variant."""
        _, variant = next(generate_variants({"config": dict(self._space)}, random_state=self._rng))
        config: dict[str, Any] = variant["config"]
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is learnt."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt."""
