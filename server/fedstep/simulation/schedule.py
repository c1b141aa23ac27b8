"""Which samples each client's local steps see, for clients that train together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedstep.simulation.population import Pool

_Positions = np.ndarray[tuple[int], np.dtype[np.int64]]
_Weights = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Share:
    """What one client passes over.

    Attributes:
        client: Its number.
        seed: Shuffles, as `Trainer` does.
        batch_size: Samples a step.
        epochs: Passes.
        max_steps: Steps after which it stops; 0 for no bound.
    """

    client: int
    seed: int
    batch_size: int
    epochs: int
    max_steps: int

    def steps(self, size: int) -> int:
        """How many steps that makes on so many samples."""
        whole = self.epochs * -(-size // self.batch_size)
        return min(whole, self.max_steps) if self.max_steps else whole


@dataclass(frozen=True)
class Schedule:
    """The batches of clients in step, padded to one size.

    Attributes:
        order: The shares' positions, those with the most steps first: the clients that still train stand in front.
        steps: How many each takes, in that order.
        widths: The largest batch that is left at each step.
        samples: Positions in the pool, int64 [steps, clients, batch]; 0 where there is no sample.
        weights: Of each in its batch's mean, float32 [steps, clients, batch]; 0 where there is no sample.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    widths: tuple[int, ...]
    samples: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, shares: Sequence[Share], pool: Pool) -> "Schedule":
        """The same batches that each client would draw by itself."""
        counts = [share.steps(pool.sizes[share.client]) for share in shares]
        largest = [min(share.batch_size, pool.sizes[share.client]) for share in shares]
        order = tuple(sorted(range(len(shares)), key=lambda position: -counts[position]))
        shape = counts[order[0]], len(shares), max(largest)
        samples, weights = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for row, position in enumerate(order):
            drawn, weighed = _batches(shares[position], counts[position], pool, largest[position])
            samples[: counts[position], row, : largest[position]] = drawn.reshape(counts[position], -1)
            weights[: counts[position], row, : largest[position]] = weighed.reshape(counts[position], -1)
        widths = [
            max(width for width, count in zip(largest, counts, strict=True) if count > s) for s in range(shape[0])
        ]
        steps = tuple(counts[position] for position in order)
        return cls(order, steps, tuple(widths), torch.from_numpy(samples), torch.from_numpy(weights))

    def still_training(self, step: int) -> int:
        """How many clients take that step: the first so many."""
        return sum(count > step for count in self.steps)

    def batch_sizes(self, row: int) -> list[int]:
        """The samples in each step of a client."""
        sizes: list[int] = (self.weights[: self.steps[row], row] > 0).sum(dim=1).tolist()
        return sizes


def padded(clients: Sequence[int], pool: Pool) -> tuple[torch.Tensor, torch.Tensor]:
    """All samples of each client in their own order, and their weights in its mean: [clients, most samples].

    A client without samples has weights of 0 only.
    """
    samples = np.zeros((len(clients), max(1, *(pool.sizes[client] for client in clients))), dtype=np.int64)
    weights = np.zeros(samples.shape, dtype=np.float32)
    for row, client in enumerate(clients):
        first, size = pool.starts[client], pool.sizes[client]
        samples[row, :size] = np.arange(first, first + size)
        weights[row, :size] = 1.0 / max(1, size)
    return torch.from_numpy(samples), torch.from_numpy(weights)


def _batches(share: Share, steps: int, pool: Pool, batch_size: int) -> tuple[_Positions, _Weights]:
    """One client's samples and weights, [steps · batch]: epoch after epoch, each filled up to whole batches."""
    size, first = pool.sizes[share.client], pool.starts[share.client]
    samples = np.zeros(steps * batch_size, dtype=np.int64)
    weights = np.zeros(steps * batch_size, dtype=np.float32)
    shuffle = torch.Generator().manual_seed(share.seed)
    last = size % batch_size
    for start in range(0, len(samples), size + (batch_size - last) % batch_size):
        drawn = torch.randperm(size, generator=shuffle).numpy()
        kept = min(size, len(samples) - start)
        samples[start : start + kept] = drawn[:kept] + first
        weights[start : start + kept] = 1.0 / batch_size
        if last and kept == size:
            weights[start + size - last : start + size] = 1.0 / last
    return samples, weights
