"""Phase 0: what clients' first local steps say of the learning rates that are worth trying."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.server.tuning.base import ClientReport
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.stepwise_settings import StepwiseSettings

_OPEN = (-math.inf, math.inf)
_EDGE = 1e-9


@dataclass(frozen=True)
class Window:
    """The part of the space that is searched.

    Attributes:
        lr: Least and greatest log10 of the effective learning rate, by local optimizer; any where one is not named.
        server_lr: Least and greatest effective server learning rate.
        margin: How far below what trains the least learning rates are, in log10.
    """

    lr: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))
    server_lr: tuple[float, float] = (0.0, math.inf)
    margin: float = 0.0

    def holds(self, point: Hyperparameters, scales: Scales) -> bool:
        """Whether the point is inside."""
        return self.trains(point, scales) and self._server_factor(point, scales) == 1.0

    def trains(self, point: Hyperparameters, scales: Scales) -> bool:
        """Whether its learning rate is inside, whatever the server's is."""
        return self._lr_factor(point, scales) == 1.0

    def pulled_in(self, point: Hyperparameters, scales: Scales) -> dict[str, Value]:
        """The point with its learning rates moved to the window's edge, as far as the space lets them."""
        moved = scales.scaled(point, "lr", self._lr_factor(point, scales))
        return scales.scaled(moved, "server_lr", self._server_factor(moved, scales))

    def beginning(self, point: Hyperparameters, scales: Scales) -> dict[str, Value]:
        """Where training begins that would begin with the point: with itself, or at the window's edge if it is outside.

        In the middle of what window and space allow instead, where a client diverged; where the point is farther
        outside than the margin; and where it is that near to the upper end of a space in which nobody diverged, and
        above the middle: twenty steps have not shown that so much is safe. Not in a window without a lower end.
        """
        nearest = self.pulled_in(point, scales)
        found = self.lr.get(scales.optimizer(point), _OPEN)
        if math.isinf(found[0]):  # with no lower end there is no middle
            return nearest
        low, high = self.span(nearest, scales)
        middle = (low + high) / 2
        at, own = (math.log10(scales.effective_lr(each)) for each in (nearest, point))
        near_enough = abs(at - own) <= self.margin and own <= max(high - self.margin, middle)
        if math.isinf(found[1]) and near_enough:
            return nearest
        return scales.scaled(nearest, "lr", 10.0 ** (middle - at))

    def span(self, point: Hyperparameters, scales: Scales) -> tuple[float, float]:
        """Least and greatest log10 of the effective learning rate, of window and space, at the point's momentum."""
        low, high = self.lr.get(scales.optimizer(point), _OPEN)
        least, most = (math.log10(scales.effective_lr(scales.scaled(point, "lr", far))) for far in (1e-12, 1e12))
        return max(low, least), min(high, most)

    def _lr_factor(self, point: Hyperparameters, scales: Scales) -> float:
        low, high = self.lr.get(scales.optimizer(point), _OPEN)
        at = math.log10(scales.effective_lr(point))
        return _factor(at, low, high)

    def _server_factor(self, point: Hyperparameters, scales: Scales) -> float:
        rate = scales.effective_server_lr(point)
        if rate is None or rate <= 0 or not {"server_lr", "server_momentum"} & set(point):
            return 1.0
        low, high = (math.log10(bound) if bound > 0 else -math.inf for bound in self.server_lr)
        return _factor(math.log10(rate), low, high)


def learnt_window(
    points: Sequence[Hyperparameters], reports: Sequence[ClientReport], scales: Scales, settings: StepwiseSettings
) -> Window:
    """The window of the effective learning rate, from clients that each trained a few steps with one of the points.

    Too high is what diverged, and a margin above it; too low is what trains much worse than the best, and a margin
    below it. Every local optimizer has a window of its own.

    Args:
        points: By their position.
        reports: What became of them.
        scales: Of the study.
        settings: The margins.
    """
    by_optimizer: dict[str, list[tuple[float, ClientReport]]] = {}
    for report in reports:
        point = points[report.point]
        at = math.log10(scales.effective_lr(point))
        by_optimizer.setdefault(scales.optimizer(point), []).append((at, report))
    bounds = {name: _bounds(found, settings) for name, found in by_optimizer.items()}
    return Window(MappingProxyType(bounds), (settings.least_server_lr, settings.most_server_lr), settings.lower_margin)


def has_diverged(report: ClientReport, settings: StepwiseSettings) -> bool:
    """Whether its loss ran away: not finite, or the mean of the last four far over that of the first two."""
    losses = report.losses
    if report.diverged or not all(math.isfinite(loss) for loss in losses):
        return True
    if len(losses) < 4:
        return False
    return sum(losses[-4:]) / 4 > settings.diverged_ratio * sum(losses[:2]) / 2


def _bounds(found: Sequence[tuple[float, ClientReport]], settings: StepwiseSettings) -> tuple[float, float]:
    diverged = [at for at, report in found if has_diverged(report, settings)]
    high = min(diverged) + settings.upper_margin if diverged else math.inf
    told = [(at, report.losses) for at, report in found if len(report.losses) > 1]
    gains = [(at, _gain(losses)) for at, losses in told if all(math.isfinite(loss) for loss in losses)]
    low = -math.inf
    if gains:
        good = settings.gain_share * float(np.quantile([gain for _, gain in gains], 0.9))
        training = [at for at, gain in gains if gain > good and at < high]
        if training and good > 0:
            low = float(np.quantile(training, 0.1)) - settings.lower_margin
    return min(low, high - settings.least_window), high


def _gain(losses: tuple[float, ...]) -> float:
    """The part of the loss that the steps took away, from the same means as divergence."""
    first = sum(losses[:2]) / 2
    last = losses[-4:]
    return 1.0 - sum(last) / len(last) / first if first > 0 else 0.0


def _factor(at: float, low: float, high: float) -> float:
    """What brings a value, given as its log10, to the nearest of its bounds."""
    if low - _EDGE <= at <= high + _EDGE:
        return 1.0
    return float(10.0 ** ((low if at < low else high) - at))
