"""`oort`: guided participant selection, as published (Lai et al. 2021, OSDI)."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from fedstep.server.selection.base import (
    Candidates,
    Floats,
    RoundSeen,
    Selection,
    SelectionContext,
    Selector,
    taken,
)
from fedstep.server.selection.draw import first, places, uniforms, weighted
from fedstep.server.selection.earlier import with_earlier
from fedstep.server.selection.utility import statistical_utility


class OortOptions(BaseModel):
    """What a study file may say of it; the defaults are the paper's, or where it names none its authors' code's.

    Attributes:
        penalty: α: what is slower than the preferred duration is worth (T/t)^α of it.
        exploration: Share of the cohort that explores, at first.
        exploration_decay: It is multiplied by this every round.
        least_exploration: It falls no lower.
        cut_off: c: clients worth at least this share of the last one that fits are drawn from.
        clip: Losses above this quantile count as it.
        duration: The preferred duration T, as a quantile of the clients' predicted times, at first.
        pacer_rounds: W: the pacer looks back over so many rounds.
        pacer_step: Δ: where they were worth less than those before them, T goes up by so much of the quantile.
        most_rounds: A client is not chosen for its worth after so many rounds; 0 for no bound.
        most_excluded: At most this share of the clients is left out so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    penalty: float = Field(default=2.0, strict=True, ge=0.0, le=100.0)
    exploration: float = Field(default=0.9, strict=True, ge=0.0, le=1.0)
    exploration_decay: float = Field(default=0.98, strict=True, gt=0.0, le=1.0)
    least_exploration: float = Field(default=0.2, strict=True, ge=0.0, le=1.0)
    cut_off: float = Field(default=0.95, strict=True, ge=0.0, le=1.0)
    clip: float = Field(default=0.95, strict=True, gt=0.0, le=1.0)
    duration: float = Field(default=0.3, strict=True, gt=0.0, le=1.0)
    pacer_rounds: int = Field(default=20, strict=True, ge=1, le=10_000)
    pacer_step: float = Field(default=0.05, strict=True, ge=0.0, le=1.0)
    most_rounds: int = Field(default=0, strict=True, ge=0, le=1_000_000)
    most_excluded: float = Field(default=0.3, strict=True, ge=0.0, le=1.0)


class OortSelector(Selector):
    """Oort's training selector (algorithm 1).

    Clients that have trained are exploited: utility = clipped samples × RMS loss, with a bonus for the time since they
    trained, times (T/t)^α for those slower than the preferred duration T. Those above the cut-off are drawn in
    proportion to it. The others are explored, faster ones more likely where their speed is known. The pacer lengthens
    T when rounds get to be worth less. The round closes at K of 1.3 K, without a deadline but the study's.

    What the paper leaves open: per-sample losses stay on the clients, so the root mean square is over local steps.

    Args:
        options: What the study file says.
    """

    def __init__(self, options: OortOptions) -> None:
        self._options = options
        self._quantile = options.duration
        self._worth: deque[float] = deque(maxlen=2 * options.pacer_rounds)
        self._rounds = 0

    def observe(self, seen: RoundSeen) -> None:
        """The pacer: T goes up where the last W rounds were worth less than the W before them."""
        self._worth.append(math.fsum(part.samples * part.loss for part in seen.parts if part.loss is not None))
        self._rounds += 1
        span = self._options.pacer_rounds
        if self._rounds % span == 0 and len(self._worth) == 2 * span:
            worth = [*self._worth]
            if math.fsum(worth[:span]) > math.fsum(worth[span:]):
                self._quantile = min(1.0, self._quantile + self._options.pacer_step)

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """The cohort of one round."""
        options = self._options
        closes_at, asked = places(len(candidates), wanted, context.over_selection)
        luck = uniforms(candidates.keys, context.rng)
        utility = self._utility(candidates, context)
        explored = np.isfinite(utility)
        share = max(options.least_exploration, options.exploration * options.exploration_decay**context.draws)
        new = np.flatnonzero(~explored)
        to_explore = max(min(round(share * asked), len(new)), asked - int(np.count_nonzero(explored)))
        exploited = self._exploited(candidates, utility, luck, asked - to_explore)
        exploring = weighted(luck, _speeds(candidates), new, asked - len(exploited))
        # Where the bound on rounds has left too few: the rest by their worth.
        rest = first(np.where(explored, -utility, np.inf), min(2 * asked, len(candidates)))
        chosen = [*exploited.tolist(), *exploring.tolist(), *rest.tolist()]
        cohort = with_earlier(candidates, context, chosen, closes_at, asked)
        return Selection(cohort=taken(candidates, cohort), wanted=closes_at, deadline_s=context.deadline_s)

    def _utility(self, candidates: Candidates, context: SelectionContext) -> Floats:
        """Lines 8 to 14; nan for those who have not trained yet."""
        utility = statistical_utility(candidates, self._options.clip, context.draws)
        known = candidates.measured
        if known.any():
            times = np.exp(candidates.log_time)
            preferred_s = float(np.quantile(times[known], self._quantile))
            slow = known & (times > preferred_s)
            utility[slow] *= (preferred_s / times[slow]) ** self._options.penalty
        return utility

    def _exploited(self, candidates: Candidates, utility: Floats, luck: Floats, count: int) -> NDArray[np.intp]:
        """Lines 15 to 17: in proportion to utility among those above the cut-off."""
        among = np.flatnonzero(np.isfinite(utility) & ~self._excluded(candidates))
        if count <= 0 or not among.size:
            return among[:0]
        last = among.size - min(count, among.size)  # the count-th from above
        cut_off = self._options.cut_off * np.partition(utility[among], last)[last]
        return weighted(luck, utility, among[utility[among] >= cut_off], count)

    def _excluded(self, candidates: Candidates) -> NDArray[np.bool_]:
        """Who has been chosen too often, the most often chosen first."""
        excluded = np.zeros(len(candidates), bool)
        if self._options.most_rounds:
            most = int(self._options.most_excluded * len(candidates))
            often = np.argsort(-candidates.trained, kind="stable")[:most]
            excluded[often] = candidates.trained[often] > self._options.most_rounds
        return excluded


def _speeds(candidates: Candidates) -> Floats:
    """One over the predicted time; the median of those where it is not known."""
    speeds = np.exp(-candidates.log_time)
    known = np.isfinite(speeds)
    return np.where(known, speeds, np.median(speeds[known]) if known.any() else 1.0)
