"""What a client's training is worth, after Oort (Lai et al. 2021, OSDI, section 4)."""

import numpy as np

from fedstep.server.selection.base import Candidates, Floats

_UNCERTAINTY = 0.1
"""Weight of the time since a client last trained (Oort, algorithm 1, line 10)."""


def statistical_utility(candidates: Candidates, clip: float, rounds: int) -> Floats:
    """Samples × root mean square of the losses, and more the longer a client has not trained.

    It is brought to 0 to 1 before the bonus for time is added, as Oort's own code does: else the bonus would mean
    nothing beside a large data set, and everything beside a small loss. nan for a client whose loss is not known.

    Args:
        candidates: The round's.
        clip: Values above this quantile count as it, so that no outlier or liar is always chosen.
        rounds: Draws of the study so far.
    """
    utility: Floats = candidates.train_samples * candidates.loss
    known = np.isfinite(utility)
    if not known.any():
        return utility
    highest = float(np.quantile(utility[known], clip, method="lower"))  # of few clients too, not the greatest
    utility = np.minimum(utility, highest) / max(highest, np.finfo(np.float64).tiny)
    last = np.maximum(rounds - candidates.waited, 1)
    bonus: Floats = np.sqrt(_UNCERTAINTY * np.log(max(rounds, 1)) / last)
    return utility + bonus
