"""How much of the budget is spent, whatever it is counted in, and how many rounds the rest pays for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Cost
from fedstep.server.tuning.program import Result

_ROUNDING = 1e-9


def _unpriced(point: Hyperparameters) -> float | None:
    return None


class Meter:
    """Adds up what arms cost, in fractions of the budget: the largest of those that are set decides.

    Where none is set the budget is the rounds of all trials. What a round costs in client-rounds, bytes or seconds is
    learnt from the rounds there were; before the first one it is guessed. Rounds are those of the configuration that
    goes on (`goes_on_with`): one that is predicted to take three times as long counts as three.

    Args:
        spec: The study.
        reserve_rounds: Rounds that are never planned with, unless nothing else is there.
        price: Seconds that a round at a point is predicted to take; None where that is not known.
    """

    def __init__(
        self, spec: StudySpec, reserve_rounds: int, price: Callable[[Hyperparameters], float | None] = _unpriced
    ) -> None:
        budget = spec.budget
        limits = {
            "rounds": float(budget.rounds),
            "client_rounds": float(budget.client_rounds),
            "payload_bytes": float(budget.payload_bytes),
            "seconds": budget.time.total_seconds() if budget.time else 0.0,
        }
        self._guess = budget.rounds_of_trials
        self._limits = {name: limit for name, limit in limits.items() if limit > 0} or {"rounds": float(self._guess)}
        self._clients = spec.round.buffer_size or spec.round.cohort_size * spec.over_selection
        self._lanes = spec.parallel_trials
        self._reserve = reserve_rounds
        self._spent = Cost()
        self._trained = Cost()
        self._depth = 0.0
        self._price = price
        self._point: Hyperparameters | None = None

    @property
    def fraction(self) -> float:
        """The part that is spent; over 1 when more was."""
        return max(_part(self._spent, name) / limit for name, limit in self._limits.items())

    @property
    def rounds_in_all(self) -> int:
        """Rounds that the whole budget pays for, as far as is known now: at least 1."""
        return max(1, math.floor(1.0 / self.per_round() + _ROUNDING))

    @property
    def rounds_left(self) -> int:
        """Rounds that the rest of it pays for, less the reserve; 0 when it is used up, at least 1 before the first."""
        left = math.floor((1.0 - self.fraction) / self.per_round() + _ROUNDING)
        least = 0 if self._spent.rounds else 1
        return max(least, left - self._reserve)

    def add(self, results: Sequence[Result]) -> None:
        """Takes in arms that may have been trained at the same time."""
        costs = [result.cost for result in results]
        cost = self._together(costs)
        self._spent += cost
        if not any(result.arm.discard for result in results):
            self._trained += cost
            lengths = [self.relative(r.arm.hyperparameters) if r.cost.rounds else 1.0 for r in results]
            self._depth += self._side_by_side(
                [cost.rounds * length for cost, length in zip(costs, lengths, strict=True)]
            )

    def goes_on_with(self, point: Hyperparameters) -> None:
        """From now on rounds are those at that point."""
        self._depth /= self.relative(point)
        self._point = point

    def relative(self, point: Hyperparameters) -> float:
        """How many times as long as one that goes on a round at that point takes; 1 where it is not known.

        Both are asked at the same time: what was predicted of them earlier may have been wrong for both.
        """
        if "seconds" not in self._limits or self._point is None or point == self._point:
            return 1.0
        this, other = self._price(point), self._price(self._point)
        return this / other if this and other else 1.0

    def clients_for(self, share: float) -> float:
        """Trainings that a part of the budget pays for; without end where no round's clients are known."""
        known = [limit for name, limit in self._limits.items() if name == "client_rounds"]
        if self._clients and "rounds" in self._limits:
            known.append(self._limits["rounds"] * self._clients)
        return share * min(known, default=math.inf)

    def per_round(self) -> float:
        """The part of the budget that a round costs."""
        return max(self._cost_of_round(name) / limit for name, limit in self._limits.items())

    def _cost_of_round(self, name: str) -> float:
        rounds = self._depth if name == "seconds" else self._trained.rounds
        known = _part(self._trained, name)
        if name == "rounds":
            return 1.0
        if rounds > 0 and known > 0:
            return known / rounds
        return self._clients if name == "client_rounds" and self._clients else self._limits[name] / self._guess

    def _together(self, costs: Sequence[Cost]) -> Cost:
        """Their sum; of the seconds of arms that ran at the same time, those that went by."""
        return replace(sum(costs, Cost()), seconds=self._side_by_side([cost.seconds for cost in costs]))

    def _side_by_side(self, amounts: Sequence[float]) -> float:
        return max(*amounts, sum(amounts) / self._lanes) if len(amounts) > 1 else sum(amounts)


def _part(cost: Cost, name: str) -> float:
    return float(getattr(cost, name))
