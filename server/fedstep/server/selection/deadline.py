"""`deadline`: those who will be in time, by what their training is worth; the others get less work, or a later turn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from fedstep.server.selection.adaptive import AdaptiveDeadline
from fedstep.server.selection.base import Candidates, RoundSeen, Selection, SelectionContext, Selector, taken
from fedstep.server.selection.draw import places, uniforms, weighted
from fedstep.server.selection.earlier import with_earlier
from fedstep.server.selection.pace import in_time, quantile_s
from fedstep.server.selection.turns import LATE, Turns, promised_draws, turns
from fedstep.server.selection.utility import statistical_utility

_CLIP = 0.95

MOST_STEPS = 2**31
"""Clients say what they like of their samples and of their steps; the protocol counts steps in 32 bits."""

_MOST_LATER = 1.25
"""A round is put off to so much of its deadline at most, where that brings more work a second."""

_MOST_PATIENCE = 3
"""Times its deadline: so much longer is waited at most for those who were late before."""

_MOST_ASKED = 0.5
"""Of those who are there: so far slow clients are asked beside the cohort. In a small fleet turns come soon anyhow."""

_LATEST_ROUNDS = 4
"""A late update is taken by the third round after its own (algorithm.md)."""

_CLEARLY = 1.5
"""Times as long as a round takes to have its updates: who takes longer is told to stop, where nothing late counts."""

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
    exploration: float = Field(default=0.3, strict=True, ge=0.0, le=1.0)
    quantile: float = Field(default=0.4, strict=True, gt=0.0, le=1.0)
    adapt: bool = Field(default=True, strict=True)
    turns: float = Field(default=3.0, strict=True, ge=0.0, le=1000.0, allow_inf_nan=False)


class DeadlineSelector(Selector):
    """Deadline-based selection (algorithm.md).

    - *The deadline* is a quantile of the clients' predicted times, adapted by what it pays (`AdaptiveDeadline`), and
      never longer than the study's own. A round that is tried again has the study's own. So has one before enough
      clients were measured, and it ends sooner where waiting for the rest does not pay.
    - *For their worth* those are drawn who will be done by it with probability `on_time`: in proportion to Oort's
      utility (Lai et al. 2021), without replacement.
    - *In turn* come the rest of the cohort: who was never asked first, then by how long ago. It is how the
      never-measured come in, and with three tenths of 1.3 × `cohort_size` places everybody has a turn in well
      under 3 × clients / `cohort_size` rounds; where more places are needed for that, there are more.
    - *Less work*: who would be late with all steps is asked for as many as fit, at least one, and is not stopped by
      the end of the round, which the faster ones bring about: a later round takes that update.
      Such clients in turn, and those of whom nothing is known yet, take nobody's place: as many more are asked, up to
      twice what `over_selection` adds.
      In a round whose late updates nobody takes (an arm's last one) they have no turn, unless they are waited for.
    - *Newcomers*, of whom the study has no update yet, are not asked in vain where enough others were faster: they
      send what they have then.
    - *Waited for* are those who were asked in vain since they last trained and whose promised rounds run out: some of
      them together make a round that asks no more than it needs and waits for all of them, beyond the deadline if not
      even one step fits. Else the faster ones would be first every time.

    Args:
        options: What the study file says.
    """

    def __init__(self, options: DeadlineOptions) -> None:
        self._options = options
        self._deadline = AdaptiveDeadline(options.quantile, options.on_time, options.adapt)

    def observe(self, seen: RoundSeen) -> None:
        """Has the deadline adapt."""
        self._deadline.observe(seen)

    def has_to_train_after(self, clients: int, closes_at: int) -> int:
        """See `Selector.has_to_train_after`."""
        return int(LATE * promised_draws(self._options.turns, clients, closes_at))

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """The cohort of one round."""
        closes_at, asked = places(len(candidates), wanted, context.over_selection)
        deadline_s = context.deadline_s
        if context.attempt == 1:
            deadline_s = self._deadline.seconds(candidates, context.deadline_s)
        timely = in_time(candidates.log_time, candidates.log_time_sd, deadline_s, self._options.on_time)
        luck = uniforms(candidates.keys, context.rng)
        too_slow = self._too_slow(candidates, timely, closes_at / asked, deadline_s, context)
        turn = turns(candidates, context.clients, closes_at, asked, self._options.turns, too_slow, luck)
        waited_for = turn.waiters if context.attempt == 1 and not context.earlier else turn.waiters[:0]
        in_turn = turn.queue[: max(round(self._options.exploration * asked), turn.places)]
        if waited_for.size:
            asked, in_turn = closes_at, turn.overdue
        elif context.earlier:
            asked += asked - closes_at
        else:
            room = max(0, int(_MOST_ASKED * len(candidates)) - asked)
            asked += min(int(np.count_nonzero(~timely[in_turn])), asked - closes_at, room)
        chosen = self._drawn(candidates, asked, timely, [*waited_for, *in_turn], turn, context)
        cohort = np.array(with_earlier(candidates, context, chosen, closes_at, asked), np.intp)
        if context.waited_for:  # as when it was first drawn
            again = np.array(candidates.find(context.waited_for), np.intp)
            waited_for = again[np.isin(again, cohort)]
        whose_turn = frozenset(taken(candidates, waited_for))
        known = np.isfinite(candidates.log_time)
        deadline_s = self._extended(candidates, waited_for[known[waited_for]], deadline_s, context)
        budgets = self._budgets(candidates, cohort[known[cohort] & ~timely[cohort]], deadline_s)
        if waited_for.size:  # who was late all the same is given as much time again, for the same steps
            patience = 1 + min(int(candidates.missed[waited_for].max()), _MOST_PATIENCE)
            deadline_s = min(patience * deadline_s, context.deadline_s)
        latest_s = min(_MOST_LATER * deadline_s, context.deadline_s)
        names, closes_at = taken(candidates, cohort), min(closes_at, len(cohort))
        newcomers = frozenset(taken(candidates, cohort[candidates.trained[cohort] == 0]))
        open_end = context.attempt == 1 and not self._deadline.can_tell(candidates)
        return Selection(
            names, closes_at, deadline_s, budgets, latest_s, frozenset(budgets), whose_turn, newcomers, open_end
        )

    def _too_slow(
        self,
        candidates: Candidates,
        timely: NDArray[np.bool_],
        share: float,
        deadline_s: float,
        context: SelectionContext,
    ) -> NDArray[np.bool_]:
        """Whose work no round would take, unless this one waits for it.

        Args:
            candidates: The round's.
            timely: Who will be in time.
            share: Of those that are asked, how many close the round.
            deadline_s: The round's.
            context: The round.
        """
        closes_s = _closes_s(candidates.log_time[timely], share, deadline_s)
        if context.takes_late:
            return candidates.beside_s + candidates.step_s > _LATEST_ROUNDS * closes_s
        slower: NDArray[np.bool_] = np.exp(candidates.log_time) > _CLEARLY * closes_s
        return slower

    def _drawn(
        self,
        candidates: Candidates,
        asked: int,
        timely: NDArray[np.bool_],
        in_turn: Sequence[int],
        turn: Turns,
        context: SelectionContext,
    ) -> list[int]:
        """Those whose turn it is first, then those drawn for their worth, and more of the queue if these are few."""
        front = list(in_turn[:asked])
        worth = statistical_utility(candidates, _CLIP, context.draws)
        if not (known := np.isfinite(worth)).all():
            worth = np.where(known, worth, np.median(worth[known]) if known.any() else 1.0)
        free = timely.copy()
        free[front] = False
        luck = uniforms(candidates.keys, context.rng)
        for_worth = weighted(luck, worth, np.flatnonzero(free), asked - len(front))
        return [*dict.fromkeys([*front, *for_worth.tolist(), *turn.queue.tolist()])][:asked]

    def _budgets(self, candidates: Candidates, late: Places, deadline_s: float) -> dict[str, int]:
        """Steps that fit: floor((D − transfer)/τ), each taken to be as slow as the whole may turn out."""
        if not late.size:
            return {}
        slower = quantile_s(np.zeros(late.size), candidates.log_time_sd[late], self._options.on_time)
        fit = np.floor((deadline_s / slower - candidates.beside_s[late]) / candidates.step_s[late])
        most = np.clip(candidates.steps[late], 1, MOST_STEPS)
        steps = np.clip(fit, 1, most).astype(np.int64)
        return dict(zip(taken(candidates, late), steps.tolist(), strict=True))

    def _extended(
        self, candidates: Candidates, waited_for: Places, deadline_s: float, context: SelectionContext
    ) -> float:
        """The deadline, longer where one of these could not take a single step in it."""
        if not waited_for.size:
            return deadline_s
        least = np.log(candidates.beside_s[waited_for] + candidates.step_s[waited_for])
        slower = quantile_s(least, candidates.log_time_sd[waited_for], self._options.on_time)
        return min(max(deadline_s, float(slower.max())), context.deadline_s)


def _closes_s(log_time: NDArray[np.float64], share: float, deadline_s: float) -> float:
    """When a round is over that ends with the first so many of these, or with its deadline."""
    return float(np.exp(np.quantile(log_time, share))) if log_time.size else deadline_s
