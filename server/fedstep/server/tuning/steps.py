"""What the clients' local steps told of an arm, in a few numbers."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedstep.server.tuning.base import ClientReport

_MOST_AVERAGED = 4


@dataclass(frozen=True)
class StepSummary:
    """Means over the clients and rounds of an arm, so that nobody need keep every step.

    Attributes:
        clients: Trainings it sums up.
        first: The loss of the first local steps (of up to four of them).
        last: The loss of the last local steps.
        oscillation: How much of the losses' way was to and fro: 0 for a monotone course, 1 for one that leads nowhere.
        diverged: Trainings whose loss ran away; they are not in the means.
    """

    clients: int = 0
    first: float = 0.0
    last: float = 0.0
    oscillation: float = 0.0
    diverged: int = 0

    @property
    def fall(self) -> float:
        """The part of the first loss that local training takes away; negative where the loss rises."""
        return 1.0 - self.last / self.first if self.first > 0 else 0.0

    def joined(self, reports: Iterable[ClientReport]) -> "StepSummary":
        """This and one more round."""
        found = self
        for report in reports:
            found = found._with(report)
        return found

    def _with(self, report: ClientReport) -> "StepSummary":
        if report.diverged or not all(math.isfinite(loss) for loss in report.losses):
            return StepSummary(self.clients, self.first, self.last, self.oscillation, self.diverged + 1)
        if len(report.losses) < 2:
            return self
        first, last = ends(report.losses)
        count = self.clients + 1
        return StepSummary(
            count,
            self.first + (first - self.first) / count,
            self.last + (last - self.last) / count,
            self.oscillation + (_oscillation(report.losses) - self.oscillation) / count,
            self.diverged,
        )


def ends(losses: tuple[float, ...]) -> tuple[float, float]:
    """The mean of the first and of the last losses, up to four each and never the same ones.

    Args:
        losses: Two or more, in the order of their steps.
    """
    count = min(_MOST_AVERAGED, len(losses) // 2)
    return sum(losses[:count]) / count, sum(losses[-count:]) / count


def _oscillation(losses: tuple[float, ...]) -> float:
    way = sum(abs(after - before) for before, after in itertools.pairwise(losses))
    return 1.0 - abs(losses[-1] - losses[0]) / way if way > 0 else 0.0
