"""A federation in a few lines of numpy: what step-wise tuners are tested against.

Clients have quadratic losses with one set of curvatures and optima of their own, and take noisy SGD steps: the noisy
quadratic model of Wu et al. 2018 (Understanding Short-Horizon Bias in Stochastic Meta-Optimization). It has what makes
tuning by rounds hard. A learning rate that is too large diverges, one that is too small is slow along the flat
directions, and a smaller one than is good looks better for a few rounds, since it averages the noise away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedstep.common.hyperparameters import Value
from fedstep.server.tuning.base import Arm, ClientReport, Cost, Observation

CURVATURES = np.array([1.0, 0.5, 0.1, 0.03, 0.01, 0.005])
START = np.full(len(CURVATURES), 3.0)
SAMPLES = 64
FLOOR = 0.1


@dataclass(frozen=True)
class Model:
    """A model, its exponential average, and the rounds behind it."""

    weights: np.ndarray
    average: np.ndarray | None = None
    rounds: int = 0


@dataclass
class Federation:
    """Trains and measures; the same arms from the same models give the same numbers.

    Attributes:
        clients: That train.
        evaluators: That measure, apart from them; a cohort is half of them.
        cohort_size: Clients of a round.
        noise: Of a gradient of one sample.
        spread: Of the clients' optima.
        fixed: Hyper-parameters that are not tuned.
    """

    clients: int = 40
    evaluators: int = 40
    cohort_size: int = 10
    noise: float = 2.0
    spread: float = 0.3
    seed: int = 0
    fixed: Mapping[str, Value] = field(default_factory=dict)

    def start(self) -> Model:
        """The initial model."""
        return Model(START.copy())

    def begin(self, arm: Arm, parents: Sequence[Model]) -> Model:
        """What an arm starts from."""
        if not parents:
            return self.start()
        if arm.of_average:
            (parent,) = parents
            assert parent.average is not None, "no average was kept of the parent"
            return Model(parent.average, parent.average, parent.rounds)
        weights = np.mean([parent.weights for parent in parents], axis=0)
        averages = [parent.average for parent in parents if parent.average is not None]
        average = np.mean(averages, axis=0) if len(averages) == len(parents) else None
        return Model(weights, average, max(parent.rounds for parent in parents))

    def step(self, arm: Arm, model: Model, round: int) -> tuple[Model, Observation]:
        """One round of an arm, or its only measurement."""
        if arm.rounds == 0:
            return model, self._observed(arm, model, 0, True, (), Cost())
        rng = np.random.default_rng([self.seed, model.rounds])
        count = arm.clients or self.cohort_size
        chosen = rng.choice(self.clients, size=min(count, self.clients), replace=False)
        points = arm.points or (arm.hyperparameters,)
        trained = [
            self._train(int(client), k % len(points), points[k % len(points)], model, arm.max_steps)
            for k, client in enumerate(chosen)
        ]
        steps = max(len(report.losses) for _, report in trained)
        cost = Cost(1, len(chosen), 1000 * len(chosen), 0.01 * steps)
        reports = [report for _, report in trained]
        last = arm.rounds is not None and round + 1 >= arm.rounds
        if arm.discard:
            return model, self._observed(arm, model, round, last, reports, cost)
        rate = float(self._all(arm.hyperparameters).get("server_lr", 1.0))
        weights = model.weights + rate * np.mean([update for update, _ in trained], axis=0)
        if not np.isfinite(weights).all() or np.abs(weights).max() > 1e6:
            why = "the model is not finite any more"
            return model, Observation(arm.number, round, None, last=last, failed=why, clients=reports, cost=cost)
        average = None
        if arm.average:
            before = model.average if model.average is not None else weights
            average = arm.average * before + (1 - arm.average) * weights
        model = Model(weights, average, model.rounds + 1)
        return model, self._observed(arm, model, round, last, reports, cost)

    def losses(self, model: Model, cohort: int) -> dict[str, float]:
        """A cohort's losses by client."""
        rng = np.random.default_rng([self.seed, 77, cohort])
        chosen = rng.choice(self.evaluators, size=self.evaluators // 2, replace=False)
        return {f"e{k}": self._loss(model.weights, self._optimum(10_000 + int(k))) for k in sorted(chosen)}

    def quality(self, model: Model) -> float:
        """The mean loss of everybody who measures; what a study is judged by."""
        return float(np.mean([self._loss(model.weights, self._optimum(10_000 + k)) for k in range(self.evaluators)]))

    def _observed(
        self, arm: Arm, model: Model, round: int, last: bool, clients: Sequence[ClientReport], cost: Cost
    ) -> Observation:
        if not arm.measured or not (last or arm.every_round):
            return Observation(arm.number, round, None, last=last, clients=clients, cost=cost)
        losses = self.losses(model, arm.cohort)
        value = float(np.mean(list(losses.values())))
        return Observation(arm.number, round, value, {"loss": value}, last, "", losses, clients, cost)

    def _train(
        self, client: int, point: int, values: Mapping[str, Value], model: Model, most: int
    ) -> tuple[np.ndarray, ClientReport]:
        full = self._all(values)
        batch = int(full.get("batch_size", 16))
        steps = int(full.get("local_epochs", 1)) * max(1, SAMPLES // batch)
        steps = min(steps, most) if most else steps
        rate = float(full.get("lr", 0.05)) / (1 - min(float(full.get("momentum", 0.0)), 0.99))
        rng = np.random.default_rng([self.seed, model.rounds, client])
        noise = rng.normal(size=(steps, len(CURVATURES))) * self.noise / np.sqrt(batch) * np.sqrt(CURVATURES)
        optimum, weights, losses = self._optimum(client), model.weights.copy(), []
        for step in range(steps):
            losses.append(self._loss(weights, optimum))
            if not losses[-1] < 1e9:
                break
            weights -= rate * (CURVATURES * (weights - optimum) + noise[step])
        diverged = not losses[-1] < 1e9
        report = ClientReport(
            f"c{client}",
            point,
            diverged,
            0 if diverged else SAMPLES,
            tuple(losses),
            (10.0,) * len(losses),
            self._loss(model.weights, optimum),
            self._loss(weights, optimum),
        )
        return weights - model.weights, report

    def _optimum(self, client: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 5, client]).normal(size=len(CURVATURES)) * self.spread

    def _loss(self, weights: np.ndarray, optimum: np.ndarray) -> float:
        return float(FLOOR + 0.5 * np.sum(CURVATURES * np.minimum(np.abs(weights - optimum), 1e6) ** 2))

    def _all(self, values: Mapping[str, Value]) -> dict[str, Value]:
        return {**self.fixed, **values}
