"""`all`: every client trains in every round."""

from fedstep.server.selection.base import Candidates, Selection, SelectionContext, Selector


class Everyone(Selector):
    """Asks every candidate and waits for every one, until the deadline.

    That is what "all" says, so neither `wanted` nor `over_selection` changes it: a round of `cohort_size` clients is
    `random`'s to draw. The order of dispatch is that of the names.
    """

    def select(self, candidates: Candidates, wanted: int, context: SelectionContext) -> Selection:
        """Everybody, by name."""
        names = tuple(candidates.names.tolist())
        return Selection(cohort=names, wanted=len(names), deadline_s=context.deadline_s)
