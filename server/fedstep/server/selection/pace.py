"""How fast clients are: the time of a local step by batch size, transfer rates, and what a round's work will take.

Everything is a duration, as the client or the coordinator measured it by its own clock; the two clocks are never
compared. Times are taken to be log-normal: what is kept of each is an exponentially weighted mean of its logarithm and
the variance around it. Clients are rows, so that 100,000 of them are predicted for in a few milliseconds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.25
"""Weight of the newest observation (algorithm.md)."""

FIRST_SD = 0.5
"""How unsure a single observation leaves us, as a factor: e^0.5 = 1.6 either way."""

LEAST_SD = 0.1

SURPRISE = 3.0
"""An observation counts as at most this many standard deviations away: one stall moves little, and several in a row
widen the deviation and are believed."""

_UNMEASURED_SIZE_SLOPE = 0.5
"""Between a step whose time does not hang on its batch (0) and one in proportion to it (1)."""

_UNMEASURED_SIZE_SD = 0.35
"""More doubt for each factor of e between a batch size and the nearest one measured."""

_LARGEST_SIZE = 16
_PER_OCTAVE = 2
_LEAST_S = 1e-6
_MOST_S = 1e7
_LEAST_REST_S = 1e-3


class Track:
    """The logarithm of some time for many clients: its mean, its variance, and how often it was observed."""

    def __init__(self) -> None:
        self.mean: Floats = np.empty(0)
        self.variance: Floats = np.empty(0)
        self.seen: NDArray[np.int64] = np.empty(0, np.int64)

    def fit(self, rows: int) -> None:
        """Makes room for so many clients; nothing is known of the new ones."""
        more = rows - len(self.mean)
        if more > 0:
            self.mean = np.concatenate([self.mean, np.full(more, np.nan)])
            self.variance = np.concatenate([self.variance, np.full(more, np.nan)])
            self.seen = np.concatenate([self.seen, np.zeros(more, np.int64)])

    def observe(self, row: int, seconds: float) -> bool:
        """Takes in one duration; answers whether it is one, finite and above 0."""
        if not (math.isfinite(seconds) and seconds > 0):
            return False
        value = math.log(min(max(seconds, _LEAST_S), _MOST_S))
        if not self.seen[row]:
            self.mean[row], self.variance[row] = value, FIRST_SD**2
        else:
            bound = SURPRISE * max(math.sqrt(self.variance[row]), LEAST_SD)
            away = min(max(value - self.mean[row], -bound), bound)
            self.mean[row] += ALPHA * away
            self.variance[row] = (1 - ALPHA) * (self.variance[row] + ALPHA * away * away)
        self.seen[row] += 1
        return True

    def at_least(self, row: int, seconds: float) -> bool:
        """Takes in that something takes longer than this; answers whether that was news.

        How much longer is not known: by as much as a first observation may be wrong. The less is known of the client,
        the more of it is believed; against many observations it weighs as one.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            return False
        bound = math.log(min(max(seconds, _LEAST_S), _MOST_S))
        if not self.seen[row]:
            return self.observe(row, seconds * math.exp(FIRST_SD))
        away = bound - self.mean[row]
        if away <= 0:
            return False
        away = min(away, SURPRISE * max(math.sqrt(self.variance[row]), LEAST_SD))
        doubt = self.variance[row] / (self.variance[row] + FIRST_SD**2 / 4)
        self.mean[row] = min(self.mean[row] + max(ALPHA, doubt / self.seen[row]) * (away + FIRST_SD), math.log(_MOST_S))
        return True

    def forget(self, row: int) -> None:
        """Nothing is known of this client any more."""
        self.mean[row] = self.variance[row] = np.nan
        self.seen[row] = 0

    def kept(self, row: int) -> list[float] | None:
        """What is known of one client, as JSON types; None when nothing is."""
        if not self.seen[row]:
            return None
        return [float(self.mean[row]), float(self.variance[row]), int(self.seen[row])]

    def recall(self, row: int, kept: Sequence[float]) -> None:
        """Takes back what `kept` gave."""
        self.mean[row], self.variance[row], self.seen[row] = kept[0], kept[1], int(kept[2])

    def of(self, rows: NDArray[np.intp]) -> "Track":
        """The same of these clients, copied."""
        copy = Track()
        copy.mean, copy.variance, copy.seen = self.mean[rows], self.variance[rows], self.seen[rows]
        return copy

    def known(self, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Mean and variance of these clients' logarithms, nan where nothing is known."""
        return self.mean[rows], np.maximum(self.variance[rows], LEAST_SD**2)


@dataclass(frozen=True)
class Prediction:
    """What a round's work takes, in columns [clients]; nan where a client's steps were never measured.

    Attributes:
        log_time: Mean of the logarithm of the seconds of all of it.
        log_time_sd: Standard deviation of that.
        step_s: Seconds of one local step, expected.
        beside_s: Seconds of all that is not steps, expected.
    """

    log_time: Floats
    log_time_sd: Floats
    step_s: Floats
    beside_s: Floats


class Paces:
    """The pace of many clients, each a row.

    A training's steps count as one observation of their mean: what is predicted are whole trainings, and steps of one
    training resemble each other. The first step, which warms up, is left out, and the longest counts as long as the
    second longest: one stall is an accident, two are a habit.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._steps: dict[int, Track] = {}
        self._ways = {"download": Track(), "upload": Track()}
        self._rest = Track()

    def fit(self, rows: int) -> None:
        """Makes room for so many clients."""
        if rows > self._rows:
            self._rows = max(rows, 2 * self._rows)
            for track in (*self._steps.values(), *self._ways.values(), self._rest):
                track.fit(self._rows)

    def stepped(self, row: int, batch_size: int, step_ms: Sequence[float] | Floats) -> float | None:
        """Takes in the local steps of a training; answers with the seconds of one, None when there was none.

        Args:
            row: The client.
            batch_size: Samples of a step.
            step_ms: Milliseconds of each, in order; what is no duration is passed over.
        """
        step_s = typical_step_s(step_ms)
        if step_s is not None:
            self._of_size(batch_size).observe(row, step_s)
        return step_s

    def steps_take_at_least(self, row: int, batch_size: int, step_s: float) -> bool:
        """Takes in that a step took longer than this; answers whether that was news."""
        return self._of_size(batch_size).at_least(row, step_s)

    def moved(self, row: int, way: str, size_bytes: int, seconds: float) -> bool:
        """Takes in a transfer.

        Args:
            row: The client.
            way: "download" or "upload".
            size_bytes: What was moved; nothing is learnt from nothing.
            seconds: How long it took.
        """
        return size_bytes > 0 and self._ways[way].observe(row, 1e6 * seconds / size_bytes)

    def rested(self, row: int, seconds: float) -> None:
        """Takes in how long a training took besides its steps and transfers."""
        self._rest.observe(row, max(seconds, _LEAST_REST_S))

    def predict(
        self,
        rows: NDArray[np.intp],
        steps: NDArray[np.int64] | int,
        batch_size: int,
        download_bytes: int,
        upload_bytes: int,
    ) -> Prediction:
        """What so many steps on batches of that size take, with the model's way there and the update's way back.

        Where a client's transfers are not known, the fleet's median stands in, and nothing where that is not known.

        Args:
            rows: The clients.
            steps: Of each, or of all.
            batch_size: Samples of a step.
            download_bytes: The model's size.
            upload_bytes: The update's size.
        """
        step, step_variance = self._step(rows, batch_size)
        step_s = np.exp(step + step_variance / 2)
        mean = steps * step_s
        variance = mean**2 * np.expm1(step_variance)
        beside_s = np.zeros(len(rows))
        for track, scale in (
            (self._ways["download"], download_bytes / 1e6),
            (self._ways["upload"], upload_bytes / 1e6),
            (self._rest, 1.0),
        ):
            log, log_variance = _or_median(track, rows)
            part, part_variance = _moments(log, log_variance, scale)
            mean, variance, beside_s = mean + part, variance + part_variance, beside_s + part
        # The sum as a log-normal of the same mean and variance (Fenton 1960).
        log_variance = np.log1p(variance / mean**2)
        log_time = np.log(mean) - log_variance / 2
        beside_s = np.where(np.isfinite(log_time), beside_s, np.nan)
        return Prediction(log_time, np.sqrt(np.maximum(log_variance, LEAST_SD**2)), step_s, beside_s)

    def upload_s(self, row: int, size_bytes: int) -> float:
        """Seconds that so many bytes are expected to be on their way from a client; 0 where nothing is known of it."""
        log, variance = (float(column[0]) for column in self._ways["upload"].known(np.array([row])))
        return size_bytes / 1e6 * math.exp(log + variance / 2) if math.isfinite(log) else 0.0

    def kept(self, row: int) -> dict[str, Any]:
        """What is known of one client, as JSON types; {} when nothing is."""
        steps = {str(place): kept for place, track in self._steps.items() if (kept := track.kept(row))}
        ways = {way: kept for way, track in self._ways.items() if (kept := track.kept(row))}
        rest = {"rest": kept} if (kept := self._rest.kept(row)) else {}
        return ({"steps": steps} if steps else {}) | ways | rest

    def recall(self, row: int, kept: Mapping[str, Any]) -> None:
        """Takes back what `kept` gave."""
        for place, values in kept.get("steps", {}).items():
            self._at(int(place)).recall(row, values)
        for way, track in (*self._ways.items(), ("rest", self._rest)):
            if way in kept:
                track.recall(row, kept[way])

    def forget_steps(self, row: int) -> None:
        """Nothing is known of this client's steps any more: it serves another task."""
        for track in (*self._steps.values(), self._rest):
            track.forget(row)

    def of(self, rows: NDArray[np.intp]) -> "Paces":
        """What is known of these clients now, for good: a copy, in which they are the rows from 0 on."""
        copy = Paces()
        copy._rows = len(rows)
        copy._steps = {place: track.of(rows) for place, track in self._steps.items()}
        copy._ways = {way: track.of(rows) for way, track in self._ways.items()}
        copy._rest = self._rest.of(rows)
        return copy

    def _of_size(self, batch_size: int) -> Track:
        return self._at(_place(batch_size))

    def _at(self, place: int) -> Track:
        if place not in self._steps:
            self._steps[place] = Track()
            self._steps[place].fit(self._rows)
        return self._steps[place]

    def _step(self, rows: NDArray[np.intp], batch_size: int) -> tuple[Floats, Floats]:
        """Mean and variance of the logarithm of a step's seconds; guessed from the nearest sizes where need be."""
        wanted = _place(batch_size)
        mean, variance = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        below, above = mean.copy(), mean.copy()
        nearest = np.full(len(rows), np.inf)
        ends = {True: (below, np.full(len(rows), np.nan)), False: (above, np.full(len(rows), np.nan))}
        for place in sorted(self._steps, key=lambda place: -abs(place - wanted)):  # the nearest last: it stands
            log, log_variance = self._steps[place].known(rows)
            there = np.isfinite(log)
            away = math.log(2) * abs(place - wanted) / _PER_OCTAVE
            values, at = ends[place <= wanted]
            values[there], at[there] = log[there], place
            variance = np.where(there, log_variance + (_UNMEASURED_SIZE_SD * away) ** 2, variance)
            slope = _UNMEASURED_SIZE_SLOPE * math.log(2) * (wanted - place) / _PER_OCTAVE
            mean = np.where(there, log + slope, mean)
            nearest = np.where(there, away, nearest)
        (low, low_at), (high, high_at) = ends[True], ends[False]
        between = np.isfinite(low) & np.isfinite(high) & (nearest > 0)
        share = (wanted - low_at[between]) / (high_at[between] - low_at[between])
        mean[between] = low[between] + share * (high[between] - low[between])
        return mean, variance


@dataclass(frozen=True)
class Known:
    """What is known of one client, for people: medians, 0 where nothing is.

    Attributes:
        batch_size: The one that was observed most often, to within a fifth.
        step_ms: Of a local step on such a batch.
        download_bytes_per_s: Of models on their way to it.
        upload_bytes_per_s: Of updates on their way from it.
    """

    batch_size: int = 0
    step_ms: float = 0.0
    download_bytes_per_s: float = 0.0
    upload_bytes_per_s: float = 0.0


def known(kept: Mapping[str, Any]) -> Known:
    """What `Paces.kept` says, for people."""
    place, step = max(kept.get("steps", {}).items(), key=lambda item: item[1][2], default=("", None))
    rates = {way: 1e6 / math.exp(kept[way][0]) if way in kept else 0.0 for way in ("download", "upload")}
    if step is None:
        return Known(0, 0.0, rates["download"], rates["upload"])
    size = round(2 ** (int(place) / _PER_OCTAVE))
    return Known(size, 1000 * math.exp(step[0]), rates["download"], rates["upload"])


def typical_step_s(step_ms: Sequence[float] | Floats) -> float | None:
    """Seconds of one local step of a training; None when none was measured. See `Paces` for what is left out."""
    times = np.asarray(step_ms, dtype=np.float64)
    if len(times) > 1:
        times = times[1:]
    times = times[np.isfinite(times) & (times > 0)]
    if not times.size:
        return None
    if times.size > 2:
        longest = int(np.argmax(times))
        times[longest] = np.partition(times, -2)[-2]
    return float(times.mean()) / 1000


def in_time(log_time: Floats, log_time_sd: Floats, deadline_s: float, probability: float) -> NDArray[np.bool_]:
    """Who is done by the deadline with at least that probability; nobody of whom nothing is known."""
    found: NDArray[np.bool_] = math.log(deadline_s) - log_time >= NormalDist().inv_cdf(probability) * log_time_sd
    return found


def quantile_s(log_time: Floats, log_time_sd: Floats, probability: float) -> Floats:
    """Seconds within which each is done with that probability; nan where nothing is known."""
    return np.exp(log_time + NormalDist().inv_cdf(probability) * log_time_sd)


def _place(batch_size: int) -> int:
    """Batch sizes within a fifth of each other share an estimate: a tuner may try every one there is."""
    return min(max(round(_PER_OCTAVE * math.log2(max(batch_size, 1))), 0), _PER_OCTAVE * _LARGEST_SIZE)


def _moments(log: Floats, variance: Floats, scale: Any) -> tuple[Floats, Floats]:
    """Mean and variance of a log-normal, times a number."""
    mean = scale * np.exp(log + variance / 2)
    return mean, mean**2 * np.expm1(variance)


def _or_median(track: Track, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
    log, variance = track.known(rows)
    unknown = np.isnan(log)
    if unknown.all():
        return np.full(len(rows), -np.inf), np.zeros(len(rows))
    if unknown.any():
        log = np.where(unknown, np.median(log[~unknown]), log)
        variance = np.where(unknown, FIRST_SD**2, variance)
    return log, variance
