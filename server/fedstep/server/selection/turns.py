"""Whose turn it is: everybody trains within a promised number of rounds, also the slow and the unlucky."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedstep.server.selection.base import Candidates
from fedstep.server.selection.draw import first

_ASKED = 0.5
"""Of the promised rounds: by then everybody has been asked. The rest is for those who were asked in vain, and for those
who were away when their turn came."""

LATE = 0.5
"""Of the promised rounds: from here on whoever was asked in vain is waited for."""

_TOGETHER = 0.5
"""Of a round: so many are waited for at once, unless somebody's time runs out. Such a round is a slow one."""


_AGAIN = 1 / 15
"""Of the promised rounds: so long after a miss nobody is waited for, and after each further one twice as long, so that
clients that never answer do not make every round wait. Who was told to stop because others were faster has not missed:
in a small fleet, which is asked nearly whole, that happens to a slow client every round."""

_MOST_DOUBLED = 3


@dataclass(frozen=True)
class Turns:
    """Who comes in turn.

    Attributes:
        queue: The first in line, twice as many as are asked: the never-asked first, then by how long ago, and at
            its end those who are too slow to be in time even for a later round.
        places: How many of them must be asked now, were as many asked every round, so that none is asked too late.
        overdue: So many of the queue, without those who were asked in vain since they last trained.
        waiters: Those that this round is to wait for, the longest waiting first. They are too slow, or were asked in
            vain since they last trained, have not just missed, and their time runs out.
    """

    queue: NDArray[np.intp]
    places: int
    overdue: NDArray[np.intp]
    waiters: NDArray[np.intp]


def promised_draws(share: float, clients: int, closes_at: int) -> int:
    """Draws within which everybody trains; the arguments are those of `turns`."""
    return math.ceil(share * clients / closes_at)


def turns(
    candidates: Candidates,
    clients: int,
    closes_at: int,
    asked: int,
    share: float,
    too_slow: NDArray[np.bool_],
    luck: NDArray[np.float64],
) -> Turns:
    """Whose turn it is.

    Args:
        candidates: The round's.
        clients: Those of the study, busy ones included.
        closes_at: At how many updates the round closes.
        asked: How many are asked.
        share: Everybody trains within `share` × clients / `closes_at` draws; 0 promises nothing.
        too_slow: Of each candidate: whether nothing it does would be taken unless it is waited for.
        luck: A number in (0, 1) for each candidate, which breaks ties: at first nobody has been asked.
    """
    queue = first(np.where(too_slow, luck, -(candidates.unasked + luck)), min(2 * asked, len(candidates)))
    window = promised_draws(share, max(clients, len(candidates)), closes_at)
    if not window:
        return Turns(queue, 0, queue[:0], queue[:0])
    in_vain = (candidates.unasked < candidates.waited) | too_slow
    left = np.clip(window - candidates.waited, 1, window)
    last = max(1, int(_ASKED * window))
    to_ask = np.clip(last - candidates.waited[~in_vain], 1, last)
    due = np.cumsum(np.bincount(to_ask, minlength=last + 1))[1:]  # within 1, 2, … draws
    needed = int(np.ceil(np.max(due / np.arange(1, last + 1))))
    rest = _AGAIN * window * 2.0 ** np.minimum(candidates.missed, _MOST_DOUBLED)
    waiting = in_vain & (left <= (1 - LATE) * window) & (candidates.unmissed >= rest)
    return Turns(queue, needed, queue[~in_vain[queue]][:needed], _waiters(left, waiting, closes_at, luck))


def _waiters(
    left: NDArray[np.int64], waiting: NDArray[np.bool_], closes_at: int, luck: NDArray[np.float64]
) -> NDArray[np.intp]:
    at = np.flatnonzero(waiting)
    most = max(1, int(_TOGETHER * closes_at))
    if not at.size or (at.size < most and left[at].min() > 1 + at.size // most):
        return at[:0]
    return at[first(left[at] + luck[at], most)]
