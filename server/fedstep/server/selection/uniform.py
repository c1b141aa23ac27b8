"""`random`: every client is as likely as any other."""

from fedstep.server.selection.base import Candidates, Selection, SelectionContext, Selector, taken
from fedstep.server.selection.draw import places


class Uniform(Selector):
    """Draws the cohort uniformly and without replacement (McMahan et al. 2017).

    It asks `over_selection` times as many clients as wanted, rounded up and never more than there are, and the round
    closes at `wanted` updates (Bonawitz et al. 2019, Towards Federated Learning at Scale). With `wanted` 0 everybody
    is asked and waited for. It learns nothing, so a draw made again is the same by itself.
    """

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """A draw of `wanted` times `over_selection` clients."""
        closes_at, asked = places(len(candidates), wanted, context.over_selection)
        # Candidates are sorted, so that the draw hangs on who is there and not on who came first.
        drawn = context.rng.choice(len(candidates), size=asked, replace=False)
        return Selection(cohort=taken(candidates, drawn), wanted=closes_at, deadline_s=context.deadline_s)
