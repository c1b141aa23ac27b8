"""How fast simulated clients are."""

import math
from dataclasses import dataclass

import numpy as np

from fedstep.common.errors import InvalidInputError

_MOST_SPREAD = 5.0
"""The slowest of a hundred clients then takes 100,000 times as long as the median: nobody waits for it."""


@dataclass(frozen=True)
class Pace:
    """One client's speed.

    Attributes:
        step_ms: Milliseconds of a local step, however small its batch.
        sample_ms: Milliseconds more for each sample of it.
        bytes_per_s: Of its connection, each way.
    """

    step_ms: float
    sample_ms: float
    bytes_per_s: float

    def step_s(self, samples: int) -> float:
        """Seconds of a local step on so many samples."""
        return (self.step_ms + self.sample_ms * samples) / 1000

    def evaluation_s(self, samples: int) -> float:
        """Seconds to measure a model: a third of a step's, which has a backward pass besides."""
        return self.step_s(samples) / 3

    def transfer_s(self, size_bytes: int) -> float:
        """Seconds that so many bytes travel."""
        return size_bytes / self.bytes_per_s


@dataclass(frozen=True)
class SpeedModel:
    """The distribution that clients' speeds are drawn from: log-normal, as measured on phones by most who did.

    Attributes:
        step_ms: Of the median client; see `Pace`.
        sample_ms: Of the median client.
        bytes_per_s: Of the median client.
        spread: Standard deviation of the logarithm, of a client's computing and of its connection, drawn apart; 0
            makes all the same, 5 is the most. At 0.5 the slowest of a hundred takes three times as long as the median.
    """

    step_ms: float = 5.0
    sample_ms: float = 0.5
    bytes_per_s: float = 2e6
    spread: float = 0.5

    def draw(self, clients: int, seed: int) -> list[Pace]:
        """The clients' speeds, the same for the same seed.

        Raises:
            InvalidInputError: A number is negative or not finite, the spread is over 5, or nothing at all moves.
        """
        for name in ("step_ms", "sample_ms", "bytes_per_s", "spread"):
            value: float = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "bytes_per_s" and not value):
                raise InvalidInputError(f"The speed model's {name} is {value}: give a finite number greater than 0.")
        if self.spread > _MOST_SPREAD:
            most = f"{_MOST_SPREAD:g}"
            raise InvalidInputError(f"The speed model's spread is {self.spread}: give a number from 0 to {most}.")
        factors = np.exp(self.spread * np.random.default_rng([seed, clients]).standard_normal((clients, 2)))
        return [
            Pace(self.step_ms * float(work), self.sample_ms * float(work), self.bytes_per_s / float(way))
            for work, way in factors
        ]
