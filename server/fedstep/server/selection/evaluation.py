"""Who evaluates: a cohort of its own, the same for every trial.

An evaluation on the clients that answered in time, or on others each round, ruins a search
(Kuo et al. 2022, On Noisy Evaluation in Federated Hyperparameter Tuning, arXiv 2212.08930).
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_SEEDS_KEPT = 4
_PREFIX = np.dtype(">u8")


def evaluation_cohort(names: Sequence[str], size: int, seed: int) -> tuple[str, ...]:
    """The evaluation cohort among the clients that are there, best rank first.

    Each name has a rank of its own, a hash keyed with the seed, and the first `size` are taken. So a client that
    comes or goes moves at most one place in the cohort, and trials are compared on the same clients; and the draw
    knows nothing of who trains.

    Args:
        names: The clients that could evaluate, in any order.
        size: How many are wanted; all when there are fewer.
        seed: The study's seed; another seed ranks otherwise.
    """
    hashed = _ranking(seed)
    return tuple(sorted(set(names), key=lambda name: (hashed(name), name))[:size])


class Ranks:
    """The ranks of a fleet's clients, hashed once for each seed: 100,000 names take a tenth of a second.

    Args:
        seeds: For so many seeds they are kept.
    """

    def __init__(self, seeds: int = _SEEDS_KEPT) -> None:
        self._seeds = seeds
        self._ranks: dict[int, NDArray[np.uint64]] = {}

    def hash_some(self, names: NDArray[np.object_], seed: int, most: int) -> bool:
        """Hashes so many of those that are not yet; answers whether there are more.

        Args:
            names: Of all rows; a row keeps its name.
            seed: As in `evaluation_cohort`.
            most: How many at once.
        """
        known = self._ranks.pop(seed, np.empty(0, np.uint64))
        hashed = _ranking(seed)
        some = b"".join(hashed(name)[:8] for name in names[len(known) : len(known) + most])
        self._ranks[seed] = known = np.concatenate([known, np.frombuffer(some, _PREFIX).astype(np.uint64)])
        while len(self._ranks) > self._seeds:
            del self._ranks[next(iter(self._ranks))]
        return len(known) < len(names)

    def cohort(self, names: NDArray[np.object_], among: NDArray[np.intp], size: int, seed: int) -> tuple[str, ...]:
        """`evaluation_cohort` of some rows.

        Args:
            names: Of all rows.
            among: The rows of those that could evaluate.
            size: How many are wanted.
            seed: As there.
        """
        while self.hash_some(names, seed, len(names)):
            pass
        if size < len(among):
            ranks = self._ranks[seed][among]
            among = among[ranks <= np.partition(ranks, size)[size]]
        return evaluation_cohort(names[among].tolist(), size, seed)


def _ranking(seed: int) -> Callable[[str], bytes]:
    keyed = hashlib.blake2b(digest_size=16, key=str(seed).encode(), person=b"evaluation")

    def hashed(name: str) -> bytes:
        mine = keyed.copy()
        mine.update(name.encode())
        return mine.digest()

    return hashed
