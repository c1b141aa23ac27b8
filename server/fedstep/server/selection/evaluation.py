"""Who evaluates: a cohort of its own, the same for every trial.

An evaluation on the clients that answered in time, or on others each round, ruins a search
(Kuo et al. 2022, On Noisy Evaluation in Federated Hyperparameter Tuning, arXiv 2212.08930).
"""

import hashlib
from collections.abc import Sequence


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

    key = str(seed).encode()

    def rank(name: str) -> tuple[bytes, str]:
        keyed = hashlib.blake2b(name.encode(), digest_size=16, key=key, person=b"evaluation")
        return keyed.digest(), name

    return tuple(sorted(set(names), key=rank)[:size])
