"""`random`: every client is as likely as any other."""

import math
from collections.abc import Sequence

from fedstep.server.selection.base import Candidate, Selection, SelectionContext, Selector

_ROUNDING = 1e-9
"""So that 10 clients times 1.1 are 11, not the 12 that ceil makes of 11.000000000000002."""


class Uniform(Selector):
    """Draws the cohort uniformly and without replacement (McMahan et al. 2017).

    It asks `over_selection` times as many clients as wanted, rounded up and never more than there are, and the round
    closes at `wanted` updates (Bonawitz et al. 2019, Towards Federated Learning at Scale). With `wanted` 0 everybody
    is asked and waited for.
    """

    def select(self, candidates: Sequence[Candidate], wanted: int, context: SelectionContext) -> Selection:
        """A draw of `wanted` times `over_selection` clients."""
        # Sorted, so that the draw hangs on who is there and not on who came first.
        names = sorted(candidate.name for candidate in candidates)
        closes_at = min(wanted or len(names), len(names))
        asked = min(math.ceil(closes_at * context.over_selection - _ROUNDING), len(names))
        drawn = context.rng.choice(len(names), size=asked, replace=False)
        return Selection(cohort=tuple(names[index] for index in drawn), wanted=closes_at, deadline_s=context.deadline_s)
