"""`deadline`: those who will be in time, by what their training is worth; the others get less work, or a later turn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from fedstep.server.selection.adaptive import AdaptiveDeadline
from fedstep.server.selection.base import Candidates, RoundSeen, Selection, SelectionContext, Selector, taken
from fedstep.server.selection.draw import first, places, uniforms, weighted
from fedstep.server.selection.earlier import with_earlier
from fedstep.server.selection.pace import in_time, quantile_s
from fedstep.server.selection.utility import statistical_utility

_CLIP = 0.95
_BEFORE_ALL = 1 << 40
_LATE_IN_WINDOW = 2 / 3
"""From here on a client that was asked in vain has the round wait for it."""

Places = NDArray[np.intp]


class DeadlineOptions(BaseModel):
    """What a study file may say of it.

    Attributes:
        on_time: Probability of being done by the deadline from which on a client is taken for its worth.
        exploration: Share of the cohort for those who were never measured, or have waited the longest.
        quantile: Of the clients' predicted times, where the deadline starts.
        adapt: Whether the deadline changes by what it pays.
        turns: Everybody trains within `turns` × clients / `cohort_size` rounds; 0 promises nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_time: float = Field(default=0.8, strict=True, gt=0.0, lt=1.0)
    exploration: float = Field(default=0.25, strict=True, ge=0.0, le=1.0)
    quantile: float = Field(default=0.8, strict=True, gt=0.0, le=1.0)
    adapt: bool = Field(default=True, strict=True)
    turns: float = Field(default=3.0, strict=True, ge=0.0, le=1000.0, allow_inf_nan=False)


@dataclass(frozen=True)
class _Turns:
    """Whose turn it is.

    Attributes:
        queue: The first in line, twice as many as are asked.
        places: How many must be asked from the front of it, or somebody's turn will be too late.
        waited_for: Those who were asked in vain and for whom it gets late: the round waits for them.
    """

    queue: Places
    places: int
    waited_for: NDArray[np.bool_]


class DeadlineSelector(Selector):
    """Deadline-based selection (algorithm.md).

    - *The deadline* is a quantile of the clients' predicted times, adapted by what it pays (`AdaptiveDeadline`), and
      never longer than the study's own. A round that is tried again has the study's own.
    - *For their worth* those are drawn who will be done by it with probability `on_time`: in proportion to Oort's
      utility (Lai et al. 2021), without replacement.
    - *In turn* come the rest of the cohort: who was never asked first, then by how long ago. It is how the
      never-measured come in, and with a quarter of 1.3 × `cohort_size` places everybody has a turn in about
      3 × clients / `cohort_size` rounds; where more places are needed for that, there are more.
    - *Less work*: who would be late with all steps is asked for as many as fit, at least one.
    - *Waited for*: who was asked in vain since it last trained, and has waited for two thirds of the promised rounds,
      has the round ask no more than it needs and wait for all of them, beyond the deadline if not even one step fits.

    Args:
        options: What the study file says.
    """

    def __init__(self, options: DeadlineOptions) -> None:
        self._options = options
        self._deadline = AdaptiveDeadline(options.quantile, options.on_time, options.adapt)

    def observe(self, seen: RoundSeen) -> None:
        """Has the deadline adapt."""
        self._deadline.observe(seen)

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """The cohort of one round."""
        closes_at, asked = places(len(candidates), wanted, context.over_selection)
        deadline_s = context.deadline_s
        if context.attempt == 1:
            deadline_s = self._deadline.seconds(candidates, context.deadline_s)
        timely = in_time(candidates.log_time, candidates.log_time_sd, deadline_s, self._options.on_time)
        turns = self._turns(candidates, closes_at, asked, context)
        chosen = self._drawn(candidates, asked, timely, turns, context)
        cohort = with_earlier(candidates, context, chosen, closes_at, asked)
        if turns.waited_for[cohort].any():
            cohort = _waiting(cohort, turns.waited_for, closes_at)
            deadline_s = self._extended(candidates, [i for i in cohort if turns.waited_for[i]], deadline_s, context)
        asked_less = np.array([i for i in cohort if not timely[i]], np.intp)
        asked_less = asked_less[np.isfinite(candidates.log_time[asked_less])]
        budgets = self._budgets(candidates, asked_less, deadline_s)
        return Selection(taken(candidates, cohort), min(closes_at, len(cohort)), deadline_s, budgets)

    def _drawn(
        self,
        candidates: Candidates,
        asked: int,
        timely: NDArray[np.bool_],
        turns: _Turns,
        context: SelectionContext,
    ) -> list[int]:
        """Those in turn first, then those drawn for their worth, and more in turn where these are too few."""
        in_turn = min(max(round(self._options.exploration * asked), turns.places), asked)
        front = turns.queue[:in_turn].tolist()
        worth = statistical_utility(candidates, _CLIP, context.draws)
        if not (known := np.isfinite(worth)).all():
            worth = np.where(known, worth, np.median(worth[known]) if known.any() else 1.0)
        free = timely.copy()
        free[front] = False
        for_worth = weighted(uniforms(candidates.keys, context.rng), worth, np.flatnonzero(free), asked - in_turn)
        chosen = [*front, *for_worth.tolist()]
        if len(chosen) < asked:
            chosen = [*dict.fromkeys([*chosen, *turns.queue.tolist()])][:asked]
        return chosen

    def _turns(self, candidates: Candidates, closes_at: int, asked: int, context: SelectionContext) -> _Turns:
        window = math.ceil(self._options.turns * max(context.clients, len(candidates)) / closes_at)
        late = candidates.waited >= (_LATE_IN_WINDOW * window if window else np.inf)
        # The luck of this draw breaks ties: at first nobody has been asked.
        turn = candidates.unasked + uniforms(candidates.keys, context.rng) + late * float(_BEFORE_ALL)
        queue = first(-turn, min(2 * asked, len(candidates)))
        needed = _places_needed(candidates.waited, window) if window else 0
        return _Turns(queue, needed, late & (candidates.unasked < candidates.waited))

    def _budgets(self, candidates: Candidates, late: Places, deadline_s: float) -> dict[str, int]:
        """Steps that fit: floor((D − transfer)/τ), each taken to be as slow as the whole may turn out."""
        if not late.size:
            return {}
        slower = quantile_s(np.zeros(late.size), candidates.log_time_sd[late], self._options.on_time)
        fit = np.floor((deadline_s / slower - candidates.beside_s[late]) / candidates.step_s[late])
        steps = np.clip(fit, 1, np.maximum(candidates.steps[late], 1)).astype(np.int64)
        return dict(zip(taken(candidates, late), steps.tolist(), strict=True))

    def _extended(
        self, candidates: Candidates, waited_for: Sequence[int], deadline_s: float, context: SelectionContext
    ) -> float:
        """The deadline, longer where one of these could not take a single step in it."""
        at = np.array(waited_for, np.intp)
        at = at[np.isfinite(candidates.log_time[at])]
        if not at.size:
            return deadline_s
        least = candidates.beside_s[at] + candidates.step_s[at]
        slower = quantile_s(np.log(least), candidates.log_time_sd[at], self._options.on_time)
        return min(max(deadline_s, float(slower.max())), context.deadline_s)


def _waiting(cohort: Sequence[int], waited_for: NDArray[np.bool_], closes_at: int) -> list[int]:
    """As many as the round closes at, those that it waits for among them."""
    return sorted(cohort, key=lambda i: not waited_for[i])[:closes_at]


def _places_needed(waited: NDArray[np.int64], window: int) -> int:
    """How many must be asked now, were as many asked every round, so that each is in as many rounds as it has left."""
    left = np.clip(window - waited, 1, window)
    due = np.cumsum(np.bincount(left, minlength=window + 1))[1:]  # within 1, 2, … rounds
    return int(np.ceil(np.max(due / np.arange(1, window + 1))))
