"""Means of updates, kept as they land: FedAvg's (McMahan et al. 2017) and FedNova's (Wang et al. 2020)."""

import math
from abc import abstractmethod

import torch

from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.local_work import WHOLE, LocalWork


class NormalisedMean(Aggregator):
    """Averages updates by what they are a step, and steps as far as they went on average.

    With pᵢ the weights' shares and lᵢ the lengths of the updates Δᵢ it gives (Σ pᵢ lᵢ) · Σ pᵢ Δᵢ / lᵢ: the rule of
    Wang et al. 2020, Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, with
    τ_eff = Σ pᵢ lᵢ. Where all lengths are equal that is the plain weighted mean, bit for bit. A partial update weighs
    as much of its client's weight as it is of the work that was due: else the few steps of a slow client, blown up to
    all of them, upset small federations (ADR 0017).

    One float32 [elements] buffer serves every round: it holds the sum of the updates, each times its weight, over its
    length, both over the first one's. Only ratios enter float32, so clients of a billion samples overflow no sooner
    than clients of one, and sums of weights are kept in float64 beside it.
    """

    def __init__(self, elements: int) -> None:
        """An empty mean.

        Args:
            elements: The length of every update.
        """
        self._sum = torch.zeros(elements, dtype=torch.float32)
        self._unit_weight = 1.0
        self._unit_length = 1.0
        self._unit_share = 1.0
        self._weight = 0.0
        self._weighted_length = 0.0
        self._count = 0

    @abstractmethod
    def length(self, work: LocalWork) -> float:
        """What an update of that work is divided by: a number greater than 0, in any one unit."""

    def add(self, update: torch.Tensor, weight: float, work: LocalWork = WHOLE) -> None:
        """Adds the update to the sum, in one pass over memory."""
        if update.shape != self._sum.shape or update.dtype is not torch.float32:
            given, due = f"{update.dtype} {list(update.shape)}", f"torch.float32 {list(self._sum.shape)}"
            raise ValueError(f"The update is {given} where {due} is due.")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"The update's weight is {weight}; it must be a finite number greater than 0.")
        work.check()
        length, share = self.length(work), work.done / work.due
        if self._count == 0:
            self._sum.copy_(update)
            self._unit_weight, self._unit_length, self._unit_share = weight, length, share
        longer, more = length / self._unit_length, share / self._unit_share
        if self._count:
            self._sum.add_(update, alpha=weight / self._unit_weight * (more / longer))
        self._weight += weight * more
        self._weighted_length += weight * more * longer
        self._count += 1

    @property
    def count(self) -> int:
        """Updates since the last `finish`."""
        return self._count

    def finish(self) -> torch.Tensor:
        """The sum over its weight, as long as updates are on average; a new tensor, the buffer stays."""
        if self._count == 0:
            raise ValueError("There is no update to combine: add one before finish.")
        mean = self._sum / (self._weight / self._unit_weight)
        if self._weighted_length != self._weight:
            mean.mul_(self._weighted_length / self._weight)
        self._weight = self._weighted_length = 0.0
        self._count = 0
        return mean


class WeightedMean(NormalisedMean):
    """FedAvg: whole updates are averaged as they are, however many local steps they are of.

    A partial one is an update of that share of the client's own work.
    """

    def length(self, work: LocalWork) -> float:
        """The share of its work that was done."""
        return work.done / work.due


class FedNova(NormalisedMean):
    """FedNova: clients that take more local steps, for their data or by chance, do not count for more.

    The mean's fixed point is that of the clients' own weights; FedAvg's leans to those of many steps.
    """

    def length(self, work: LocalWork) -> float:
        """The effective local steps that were taken."""
        return work.done
