"""`power_of_choice`: of some drawn clients, those whose loss is the highest (Cho et al. 2020, arXiv 2010.01243)."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedstep.server.selection.base import Candidates, Selection, SelectionContext, Selector, taken
from fedstep.server.selection.draw import first, places, uniforms, weighted
from fedstep.server.selection.earlier import with_earlier


class PowerOfChoiceOptions(BaseModel):
    """What a study file may say of it.

    Attributes:
        choice: Clients that are drawn for each that is asked: the paper's d is `choice` times the cohort.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: float = Field(default=2.0, strict=True, ge=1.0, le=100.0, allow_inf_nan=False)


class PowerOfChoice(Selector):
    """Draws d clients in proportion to their data and takes those with the highest loss, as π_rpow-d does.

    The loss is the one that a client last reported when it trained, so that nobody is asked twice a round. A client
    that has none yet comes before all that have one, as in the paper.

    Args:
        options: What the study file says.
    """

    def __init__(self, options: PowerOfChoiceOptions) -> None:
        self._options = options

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """The d drawn, and of these the most lossy."""
        closes_at, asked = places(len(candidates), wanted, context.over_selection)
        everyone = np.arange(len(candidates))
        drawn = weighted(
            uniforms(candidates.keys, context.rng),
            candidates.train_samples.astype(np.float64),
            everyone,
            max(asked, round(asked * self._options.choice)),
        )
        losses = np.where(np.isnan(candidates.loss), np.inf, candidates.loss)
        lossy = drawn[first(-losses[drawn], asked)]
        cohort = with_earlier(candidates, context, lossy, closes_at, asked)
        return Selection(cohort=taken(candidates, cohort), wanted=closes_at, deadline_s=context.deadline_s)
