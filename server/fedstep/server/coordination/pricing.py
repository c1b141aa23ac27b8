"""What a round would take, by the pace that the fleet has now: for tuners, who see the price before they pay it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.pacing import steps_of
from fedstep.server.selection.base import Candidates, Floats, Selection, SelectionContext, Selector
from fedstep.server.selection.pace import ALPHA, Paces, Prediction
from fedstep.server.tuning.base import Prices

MOST_CLIENTS = 2_000
"""Of more, so many stand for all: what is asked for are quantiles of their times."""

_DRAWS = 7
"""Cohorts that are drawn for a price: their mean is what a round is expected to take."""

_MOST_OFF = 4.0
"""Rounds that took so many times what was predicted, or a part of it, were held up by something else."""


class Experience:
    """What the rounds of a study took, beside what was predicted of them.

    Who is drawn is not quite who would be expected: the trials of a study share their cohorts, turns come round.

    Attributes:
        factor: Lately, of the time that training was predicted to take.
        measure_s: Seconds that the last measurement of a model took.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self.measure_s = 0.0
        self._rounds = 0

    def trained(self, predicted_s: float | None, took_s: float) -> None:
        """Takes in a round that was trained at the first try."""
        if predicted_s and took_s > 0:
            self._rounds += 1
            newest = min(max(took_s / predicted_s, 1 / _MOST_OFF), _MOST_OFF)
            self.factor *= (newest / self.factor) ** max(ALPHA, 1 / self._rounds)


@dataclass(frozen=True)
class PriceList(Prices):
    """A round's price is that of cohorts that the study's own selector would draw now.

    A copy of all that it is read from: it may be asked in any thread, and says the same each time.

    Attributes:
        resolve: Every hyper-parameter of a round at a point of the space.
        wanted: How many updates a round with these is to bring.
        selector: Asked only; a copy.
        candidates: Who could train; what they would take is worked out for each point.
        paces: Theirs, in their order.
        manifest: The model's layout.
        context: Of the round, but for its deadline and its randomness.
        share: For how many clients one of the candidates stands.
        factor: What rounds took of late, of what was predicted.
        measure_s: Seconds that a measurement of the model took of late.
    """

    resolve: Callable[[Hyperparameters], dict[str, Value]]
    wanted: Callable[[Hyperparameters], int]
    selector: Selector
    candidates: Candidates
    paces: Paces
    manifest: Manifest
    context: SelectionContext
    share: float = 1.0
    factor: float = 1.0
    measure_s: float = 0.0

    def round_s(self, point: Hyperparameters) -> float | None:
        """See `Prices.round_s`."""
        predicted_s = self.predicted_s(point)
        return None if predicted_s is None else self.factor * predicted_s + self.measure_s

    def predicted_s(self, point: Hyperparameters, draws: Iterable[int] = range(_DRAWS)) -> float | None:
        """Seconds that the training takes by the clients' paces alone; None while none is known.

        Args:
            point: Of the space.
            draws: The seeds of the cohorts that are drawn: their mean is taken.
        """
        values = self.resolve(point)
        candidates = self._candidates(values)
        if not candidates.measured.any():
            return None
        wanted = max(1, round(self.wanted(values) / self.share))
        longest_s = float(values.get("deadline_s") or self.context.deadline_s)
        took = []
        for draw in draws:
            context = replace(self.context, rng=np.random.default_rng(draw), deadline_s=longest_s)
            took.append(_takes_s(candidates, self.selector.select(candidates, wanted, context)))
        return float(np.mean(took))

    def _candidates(self, values: Hyperparameters) -> Candidates:
        steps = steps_of(self.candidates.train_samples, values, 0)
        rows, model = np.arange(len(self.candidates)), self.manifest
        predicted = self.paces.predict(rows, steps, int(values["batch_size"]), model.payload_bytes, model.update_bytes)
        return priced(self.candidates, steps, predicted)


def priced(candidates: Candidates, steps: NDArray[np.int64], predicted: Prediction) -> Candidates:
    """Candidates with what so many local steps are predicted to take."""
    return replace(
        candidates,
        steps=steps,
        log_time=predicted.log_time,
        log_time_sd=predicted.log_time_sd,
        step_s=predicted.step_s,
        beside_s=predicted.beside_s,
    )


def _takes_s(candidates: Candidates, selection: Selection) -> float:
    """When the round would close: at the last update that it waits for, or at its deadline.

    Whoever was never measured is taken for the median client.
    """
    at = np.array(candidates.find(selection.cohort), dtype=np.intp)
    budgets = np.array([selection.step_budgets.get(name, np.inf) for name in selection.cohort])
    steps = candidates.steps[at]
    times = _with_budgets(np.exp(candidates.log_time[at]), steps, budgets, candidates.step_s[at])
    known = np.exp(candidates.log_time[candidates.measured])
    times = np.where(np.isfinite(times), times, np.median(known))
    closes_s = np.partition(times, selection.wanted - 1)[selection.wanted - 1]
    return float(min(closes_s, selection.deadline_s))


def _with_budgets(times: Floats, steps: NDArray[np.int64], budgets: Floats, step_s: Floats) -> Floats:
    """Less the steps that are not asked for."""
    return np.asarray(times - np.maximum(steps - budgets, 0.0) * np.minimum(step_s, times / np.maximum(steps, 1)))
