"""Paired comparison of two models on the same clients, and what is adopted on such evidence."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from fedstep.server.tuning.stepwise_settings import StepwiseSettings

_MOST_Z = 99.0
_LONE_SPREAD = 0.02
"""Of a single measurement, such as a proxy set's, the spread taken for granted, relative to the loss."""


@dataclass(frozen=True)
class Evidence:
    """What the clients that measured both say: d = loss(challenger) − loss(incumbent), one a client.

    Attributes:
        mean: Of d; negative where the challenger is better.
        z: mean / (sd / √n); within ±99.
        n: Clients.
        base: The incumbent's mean loss.
        priced: d is no difference of losses, but of improvements in the same time (`compare_priced`).
    """

    mean: float = 0.0
    z: float = 0.0
    n: int = 0
    base: float = 0.0
    priced: bool = False

    @property
    def relative(self) -> float:
        """The mean in units of the incumbent's loss."""
        return self.mean / self.base if self.base > 0 else 0.0

    def details(self) -> dict[str, float | int]:
        """For a note."""
        name = "difference_in_equal_time" if self.priced else "mean_difference"
        return {name: _short(self.mean), "z": _short(self.z), "clients": self.n, "loss": _short(self.base)}


def compare(challenger: Mapping[str, float], incumbent: Mapping[str, float], clip: float) -> Evidence:
    """The evidence from losses by client; clients that measured only one of the two are left out."""
    names = sorted(challenger.keys() & incumbent.keys())
    if not names:
        return Evidence()
    theirs = [_clipped(incumbent[name], clip) for name in names]
    differences = [_clipped(challenger[name], clip) - loss for name, loss in zip(names, theirs, strict=True)]
    return _evidence(differences, fmean(theirs))


def compare_priced(
    challenger: tuple[Mapping[str, float], float],
    incumbent: tuple[Mapping[str, float], float],
    before: Mapping[str, float],
    clip: float,
) -> Evidence:
    """The same by improvement per second, for where seconds are what is spent.

    Args:
        challenger: Its losses by client, and the seconds that it trained.
        incumbent: The same.
        before: The losses of the model that both started from.
        clip: Losses are clipped here.

    Returns:
        The difference of improvements in the time of the incumbent's leg, with the sign of a loss.
    """
    names = sorted(challenger[0].keys() & incumbent[0].keys() & before.keys())
    if not names or min(challenger[1], incumbent[1]) <= 0:
        return compare(challenger[0], incumbent[0], clip)
    pace = incumbent[1] / challenger[1]
    differences = []
    for name in names:
        start = _clipped(before[name], clip)
        theirs = start - _clipped(challenger[0][name], clip)
        ours = start - _clipped(incumbent[0][name], clip)
        differences.append(ours - pace * theirs)
    base = fmean(_clipped(incumbent[0][name], clip) for name in names)
    return replace(_evidence(differences, base), priced=True)


def mean_losses(losses: Iterable[Mapping[str, float]], clip: float) -> list[float]:
    """The mean clipped loss of several models over the clients that measured all of those measured at all.

    A model that nobody measured has an infinite one; where no client measured all, each is taken over its own.
    """
    found = list(losses)
    measured = [set(each) for each in found if each]
    common = set.intersection(*measured) if measured else set()
    return [
        fmean(_clipped(each[name], clip) for name in sorted(common or each.keys())) if each else math.inf
        for each in found
    ]


def adopts(evidence: Evidence, weaker: bool, settings: StepwiseSettings) -> bool:
    """Whether the challenger becomes the incumbent.

    Args:
        evidence: Of the challenger against the incumbent.
        weaker: The challenger would train much less hard, and it is early: one that averages with small steps always
            looks good one leg later (FIRE PBT, arXiv 2109.13800), so more is asked of it.
        settings: The bounds.
    """
    return evidence.z < (settings.guard_z if weaker else settings.adopt_z)


def surely_better(evidence: Evidence, settings: StepwiseSettings) -> bool:
    """Whether the challenger's loss is surely (`guard_z`) and noticeably (`screen_gain`) less."""
    return evidence.z < settings.guard_z and evidence.relative < -settings.screen_gain


def _evidence(differences: list[float], base: float) -> Evidence:
    n, mean = len(differences), fmean(differences)
    spread = stdev(differences) / math.sqrt(n) if n > 1 else _LONE_SPREAD * base
    if abs(mean) > _MOST_Z * spread:
        return Evidence(mean, math.copysign(_MOST_Z, mean), n, base)
    return Evidence(mean, mean / spread if spread > 0 else 0.0, n, base)


def _clipped(loss: float, clip: float) -> float:
    return min(loss, clip) if math.isfinite(loss) else clip


def _short(value: float) -> float:
    return float(f"{value:.4g}")
