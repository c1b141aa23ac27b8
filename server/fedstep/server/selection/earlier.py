"""Who was drawn before is drawn again: arms that are compared are trained on the same clients (ADR 0008)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedstep.server.selection.base import Candidates, SelectionContext


def with_earlier(
    candidates: Candidates,
    context: SelectionContext,
    drawn: Sequence[int] | NDArray[np.intp],
    closes_at: int,
    asked: int,
) -> list[int]:
    """Those who were asked when this round was first drawn, as far as they are there, and then those drawn now.

    No more are asked than then, unless the round would not come to its updates.

    Args:
        candidates: The round's.
        context: The round.
        drawn: Places among the candidates, the first choice first; enough without the earlier ones.
        closes_at: At how many updates the round closes.
        asked: How many are asked, were it the first time.
    """
    if context.earlier:
        asked = min(asked, max(len(context.earlier), closes_at))
    earlier = candidates.find(context.earlier)
    return [*dict.fromkeys([*earlier, *map(int, drawn)])][:asked]
