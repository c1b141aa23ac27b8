"""The exponentiated gradient over configurations that share weights: FedEx's update.

Khodak et al., "Federated Hyperparameter Tuning: Challenges, Baselines, and Connections to Weight-Sharing", NeurIPS
2021 (arXiv 2106.04502), algorithm 2 and its appendix on settings; where the paper leaves a setting open, the default
of the authors' own experiments.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Schedule = Literal["aggressive", "adaptive", "constant"]
"""The step size, for k configurations and the gradient g of the present round:
aggressive: sqrt(2 log k) / max|g|. adaptive: sqrt(2 log k) / sqrt(Σ max|g|²) over all rounds so far.
constant: sqrt(2 log k)."""


class ExponentiatedGradient:
    """A distribution θ over k configurations that moves to those after whose training clients have a lower loss.

    Attributes:
        log_theta: The logarithm of θ: float64 [k].
    """

    def __init__(self, size: int, schedule: Schedule, discount: float) -> None:
        """Starts from the uniform distribution.

        Args:
            size: Configurations, k, at least 1.
            schedule: The step size.
            discount: Of the baseline: the mean loss of earlier rounds, each weighed by discount^age. 0 takes the most
                recent alone, 1 their plain mean.
        """
        self.log_theta: NDArray[np.float64] = np.full(size, -math.log(size))
        self._schedule = schedule
        self._discount = discount
        self._step = math.sqrt(2 * math.log(size))
        self._norm = 0.0  # sqrt(Σ max|g|²)
        self._means: list[float] = []

    @property
    def theta(self) -> NDArray[np.float64]:
        """The distribution: [k], sums to 1."""
        theta = np.exp(self.log_theta)
        return np.asarray(theta / theta.sum(), np.float64)

    @property
    def likeliest(self) -> int:
        """The configuration of the highest probability."""
        return int(np.argmax(self.log_theta))

    @property
    def entropy(self) -> float:
        """Of the distribution, in nats: log k at the start, 0 when one configuration has all."""
        theta = self.theta[self.theta > 0]
        return float(-(theta * np.log(theta)).sum())

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Configurations for that many clients, each drawn from θ on its own."""
        return [int(index) for index in rng.choice(len(self.log_theta), size=count, p=self.theta)]

    def update(self, drawn: Sequence[int], losses: Sequence[float], weights: Sequence[float]) -> None:
        """Takes one step: θ_j ← θ_j exp(-η g_j), and normalises.

        g_j = Σ_i w_i (loss_i - λ) [i drew j] / θ_j over the clients i of the round, where w sums to 1 and λ is the
        baseline, 0 in the first round.

        Args:
            drawn: The configuration of each client.
            losses: Of each client on its validation set after training; finite.
            weights: Of each client, not negative: the size of that set. A round whose weights are all 0 is ignored.
        """
        total = float(sum(weights))
        if total <= 0:
            return
        shares = [weight / total for weight in weights]
        baseline = self._baseline()
        gradient = np.zeros_like(self.log_theta)
        theta = self.theta
        for index, loss, share in zip(drawn, losses, shares, strict=True):
            gradient[index] += share * (loss - baseline) / theta[index]
        self._means.append(sum(loss * share for loss, share in zip(losses, shares, strict=True)))
        largest = float(np.abs(gradient).max())
        if largest > 0:
            self._move(gradient, largest)

    def _move(self, gradient: NDArray[np.float64], largest: float) -> None:
        self._norm = math.hypot(self._norm, largest)
        match self._schedule:
            case "aggressive":
                length = 1.0
            case "adaptive":
                length = largest / self._norm
            case "constant":
                length = largest
        moved = self.log_theta - self._step * length * (gradient / largest)
        self.log_theta = moved - np.logaddexp.reduce(moved)

    def _baseline(self) -> float:
        if not self._means:
            return 0.0
        weights = [self._discount**age for age in range(len(self._means))]
        return sum(mean * weight for mean, weight in zip(reversed(self._means), weights, strict=True)) / sum(weights)
