"""A comparison in figures: how good, how sure, how soon, and whether a difference is more than luck."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy import stats

from fedstep.common.spec import Objective
from fedstep.simulation.outcome import Outcome, Point

_RESAMPLES = 9999
_SHARE = 0.95


@dataclass(frozen=True)
class Difference:
    """A tuner's values minus the first tuner's, paired over seeds.

    Attributes:
        seeds: Pairs.
        mean: Of the differences.
        low: Lower end of its 95 % bootstrap interval (Efron 1987, Better Bootstrap Confidence Intervals).
        high: Upper end.
        p_wilcoxon: Of the signed-rank test (Wilcoxon 1945), two-sided.
        p_t: Of the paired t-test, two-sided.
    """

    seeds: int
    mean: float
    low: float | None = None
    high: float | None = None
    p_wilcoxon: float | None = None
    p_t: float | None = None


@dataclass(frozen=True)
class Row:
    """One tuner at one budget, over its seeds.

    Attributes:
        tuner: As `--tuners` wrote it.
        budget: In rounds.
        seeds: How many.
        mean: Of the values.
        error: Standard error of the mean; None for a single seed.
        worst: The worst seed's value.
        best: The best seed's value.
        midway: Mean and standard error on the way, by rounds spent.
        reached: Seeds that came to the target.
        rounds_to_target: Median over the seeds; None when half of them or more did not come to it.
        seconds_to_target: The same in virtual time.
        difference: To the first tuner; None for that one itself, and where no seed is shared.
    """

    tuner: str
    budget: int
    seeds: int
    mean: float
    error: float | None
    worst: float
    best: float
    midway: Mapping[int, tuple[float, float | None]]
    reached: int
    rounds_to_target: float | None
    seconds_to_target: float | None
    difference: Difference | None


def rows_of(
    outcomes: Sequence[Outcome],
    tuners: Sequence[str],
    objective: Objective,
    target: float | None,
    at: Sequence[int] = (),
) -> list[Row]:
    """The rows of one budget and protocol, in the tuners' order; without tuners that have no outcome.

    Args:
        outcomes: Of one budget and protocol.
        tuners: The first is what the others are compared to.
        objective: What is better.
        target: What counts as reached; None to leave it out.
        at: Rounds spent at which the curves are read as well.
    """
    by_tuner = {tuner: {o.key.seed: o for o in outcomes if o.key.tuner == tuner} for tuner in tuners}
    first = by_tuner[tuners[0]]
    return [
        _row(tuner, found, first if tuner != tuners[0] else {}, objective, target, at)
        for tuner, found in by_tuner.items()
        if found
    ]


def target_of(outcomes: Sequence[Outcome], objective: Objective) -> float | None:
    """95 % of the best that anyone reaches, at any time; None without outcomes."""
    best: float | None = None
    for outcome in outcomes:
        for value in (outcome.value, *(point.value for point in outcome.curve)):
            if math.isfinite(value) and (best is None or objective.better(value, best)):
                best = value
    if best is None:
        return None
    return best * _SHARE if objective.direction == "maximize" else best / _SHARE


def value_at(curve: Sequence[Point], rounds: float) -> float | None:
    """What would have been delivered after that many rounds: the last point's value until then."""
    until = [point.value for point in curve if point.rounds <= rounds]
    return until[-1] if until else None


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error, None for a single value."""
    return fmean(values), float(stats.sem(values)) if len(values) > 1 else None


def difference_of(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Tests the paired differences of two equally long lists.

    A test that a few pairs do not allow is left out.
    """
    pairs = np.subtract(values, reference)
    found = Difference(len(pairs), float(np.mean(pairs)))
    if len(pairs) < 2 or not np.all(np.isfinite(pairs)):
        return found
    if np.ptp(pairs) == 0:  # no spread: the tests divide by it
        return Difference(len(pairs), found.mean, found.mean, found.mean, 1.0 if found.mean == 0 else None)
    interval = stats.bootstrap(
        (pairs,), np.mean, n_resamples=_RESAMPLES, confidence_level=0.95, rng=np.random.default_rng(0)
    ).confidence_interval
    return Difference(
        len(pairs),
        found.mean,
        _finite(interval.low),
        _finite(interval.high),
        _finite(stats.wilcoxon(pairs).pvalue),
        _finite(stats.ttest_1samp(pairs, 0.0).pvalue),
    )


def _row(
    tuner: str,
    found: Mapping[int, Outcome],
    first: Mapping[int, Outcome],
    objective: Objective,
    target: float | None,
    at: Sequence[int],
) -> Row:
    outcomes = list(found.values())
    values = [outcome.value for outcome in outcomes]
    worst, best = min(values), max(values)
    if objective.direction == "minimize":
        worst, best = best, worst
    mean, error = mean_and_error(values)
    hits = [_first_hit(outcome.curve, objective, target) for outcome in outcomes]
    shared = sorted(found.keys() & first.keys())
    pairs = [found[seed].value for seed in shared], [first[seed].value for seed in shared]
    return Row(
        tuner=tuner,
        budget=outcomes[0].key.budget,
        seeds=len(outcomes),
        mean=mean,
        error=error,
        worst=worst,
        best=best,
        midway=_midway(outcomes, at),
        reached=sum(hit is not None for hit in hits),
        rounds_to_target=_median([hit.rounds if hit else math.inf for hit in hits]),
        seconds_to_target=_median([hit.seconds if hit else math.inf for hit in hits]),
        difference=difference_of(*pairs) if shared else None,
    )


def _midway(outcomes: Sequence[Outcome], at: Sequence[int]) -> dict[int, tuple[float, float | None]]:
    found = {}
    for rounds in at:
        values = [value for o in outcomes if (value := value_at(o.curve, rounds)) is not None]
        if values and rounds < outcomes[0].key.budget:
            found[rounds] = mean_and_error(values)
    return found


def _first_hit(curve: Sequence[Point], objective: Objective, target: float | None) -> Point | None:
    if target is None:
        return None
    return next((point for point in curve if not objective.better(target, point.value)), None)


def _median(values: Sequence[float]) -> float | None:
    """The median; None where it is not finite, because too many never came there."""
    return _finite(float(np.median(values)))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
