"""The weighted mean of updates, kept as they land (McMahan et al. 2017, FedAvg)."""

import math

import torch

from fedstep.server.aggregation.base import Aggregator


class WeightedMean(Aggregator):
    """The mean of a round's updates, each weighted by its client's samples.

    One float32 [elements] buffer serves every round: it holds the sum of the updates, each times its weight over the
    first one's. Only ratios of weights enter float32, so clients of a billion samples overflow no sooner than clients
    of one, and the sum of the weights is kept in float64 beside it.
    """

    def __init__(self, elements: int) -> None:
        """An empty mean.

        Args:
            elements: The length of every update.
        """
        self._sum = torch.zeros(elements, dtype=torch.float32)
        self._unit = 1.0
        self._weight = 0.0
        self._count = 0

    def add(self, update: torch.Tensor, weight: float) -> None:
        """Adds the update to the sum, in one pass over memory."""
        if update.shape != self._sum.shape or update.dtype is not torch.float32:
            given, due = f"{update.dtype} {list(update.shape)}", f"torch.float32 {list(self._sum.shape)}"
            raise ValueError(f"The update is {given} where {due} is due.")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"The update's weight is {weight}; it must be a finite number greater than 0.")
        if self._count == 0:
            self._sum.copy_(update)
            self._unit = weight
        else:
            self._sum.add_(update, alpha=weight / self._unit)
        self._weight += weight
        self._count += 1

    @property
    def count(self) -> int:
        """Updates since the last `finish`."""
        return self._count

    def finish(self) -> torch.Tensor:
        """The sum over its weight, a new tensor; the buffer stays for the next round."""
        if self._count == 0:
            raise ValueError("There is no update to combine: add one before finish.")
        mean = self._sum / (self._weight / self._unit)
        self._weight, self._count = 0.0, 0
        return mean
