"""A made-up federation of learning curves, to drive tuners whose arms go on from one another's models.

A model is one number, its loss. A round of training lowers it by a share that falls with the distance of log10 lr
from -1 (and of server_lr from 1); too large a learning rate diverges. It keeps the coordinator's promises: an arm
starts from its parents' models, arms of the same round see the same clients, kept models stay and others go.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, ClientReport, Cost, Decision, Note, Observation, ProposeContext, Tuner

FIRST_LOSS = 3.0
BEST_LR = 0.1
DIVERGES_AT = 0.6
TWO_RATES = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "server_lr": {"low": 0.3, "high": 2.0, "log": True},
}


def two_rates(**changes: Any) -> StudySpec:
    """A study of the clients' learning rate and the server's."""
    content = {"name": "a", "task": "digits", "seed": 3, "space": TWO_RATES, "round": {"cohort_size": 10}}
    return StudySpec.model_validate(content | {"selector": {"name": "random"}} | changes)


@dataclass(frozen=True)
class Model:
    """A model's loss, how many rounds are behind it, and its exponential average."""

    loss: float = FIRST_LOSS
    rounds: int = 0
    average: float | None = None


def gain(point: Mapping[str, Any]) -> float:
    """The share of the loss that a round takes away; negative where training diverges."""
    if point.get("lr", BEST_LR) > DIVERGES_AT:
        return -1.0
    distance = abs(math.log10(point.get("lr", BEST_LR)) - math.log10(BEST_LR))
    distance += abs(math.log10(point.get("server_lr", 1.0)))
    return 0.2 * math.exp(-2.0 * distance)


@dataclass
class Federation:
    """Opens a tuner's arms, trains them, and commits.

    Attributes:
        tuner: Who decides.
        spec: The study.
        noise: Of a client's loss, as a standard deviation.
        fails: Arms that cannot be trained.
        arms: All there were, by number.
        models: Those that are kept, by their arm's number.
        open: Arms under way.
        notes: The tuner's decisions.
        measured: The objective of every arm that was measured, in order of time.
        spent: By all of them.
        state: What the tuner committed last.
    """

    tuner: Tuner
    spec: StudySpec
    noise: float = 0.05
    fails: Callable[[Arm], bool] = lambda arm: False
    arms: dict[int, Arm] = field(default_factory=dict)
    models: dict[int, Model] = field(default_factory=dict)
    open: list[int] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    measured: dict[int, float] = field(default_factory=dict)
    spent: Cost = field(default_factory=Cost)
    state: dict[str, Any] = field(default_factory=dict)

    def run(self, until: Callable[[], bool] = lambda: False) -> "Federation":
        """Until the tuner has nothing left, or `until` holds."""
        for _ in range(5000):
            if until():
                return self
            slots = self.spec.parallel_trials - len(self.open)
            if slots:
                self._take(self.tuner.propose(ProposeContext(slots, len(self.arms), tuple(self.open))))
            if not self.open:
                return self
            self._train(self.arms[self.open[0]])
        raise AssertionError("the tuner does not come to an end")

    def restart(self, tuner: Tuner) -> None:
        """Another process goes on with what was committed."""
        tuner.restore(json.loads(json.dumps(self.state)), [self.arms[number] for number in self.open])
        self.tuner = tuner

    @property
    def delivered(self) -> Model:
        """The model that the study ends with."""
        number = self.tuner.delivers()
        assert number is not None
        return self.models[number]

    def lineage(self, number: int) -> list[Arm]:
        """The arms that a model comes from, the first one first."""
        arm = self.arms[number]
        return [*self.lineage(arm.parents[0]), arm] if arm.parents else [arm]

    def _take(self, arms: list[Arm]) -> None:
        for arm in arms:
            assert arm.number == len(self.arms)
            for parent in arm.parents:
                assert parent in self.models, f"the model of arm {parent} is gone"
            self.arms[arm.number] = arm
            self.open.append(arm.number)
        self.state = self.tuner.state()

    def _train(self, arm: Arm) -> None:
        """All rounds of an arm, then its commit."""
        rounds = self.spec.budget.rounds_per_trial if arm.rounds is None else arm.rounds
        model = self.models[arm.parents[0]] if arm.parents else Model()
        if arm.of_average:
            assert model.average is not None
            model = Model(model.average, model.rounds)
        failed = "it failed" if self.fails(arm) else ""
        for k in range(max(rounds, 1)):
            clients: list[ClientReport] = []
            if rounds:
                model, clients = self._round(arm, model)
            last = k + 1 >= rounds
            value = model.loss if arm.measured and (last or arm.every_round) and not failed else None
            if value is not None:
                self.measured[arm.number] = value
            cost = Cost(rounds=1, client_rounds=len(clients)) if rounds else Cost()
            self.spent += cost
            metrics = {} if value is None else {"loss": value}
            decision = self.tuner.observe(
                Observation(arm.number, k, value, metrics, last, failed, clients=clients, cost=cost)
            )
            self.notes += self.tuner.notes()
            if decision is not Decision.CONTINUE:
                break
        self.open.remove(arm.number)
        if not failed:
            self.models[arm.number] = model
        kept = self.tuner.keeps()
        self.models = {number: model for number, model in self.models.items() if number in kept}
        self.state = self.tuner.state()

    def _round(self, arm: Arm, model: Model) -> tuple[Model, list[ClientReport]]:
        rng = np.random.default_rng([self.spec.seed, model.rounds])
        clients = []
        for k in range(self.spec.round.cohort_size):
            point = k % len(arm.points) if arm.points else 0
            values = arm.points[point] if arm.points else arm.hyperparameters
            clients.append(self._client(f"c{k}", point, {**arm.hyperparameters, **values}, model, rng))
        taken = [client for client in clients if client.samples]
        total = sum(client.samples for client in taken)
        mean = sum(_after(client, model) * client.samples for client in taken) / total if taken else model.loss
        loss = model.loss + float(arm.hyperparameters.get("server_lr", 1.0)) * (mean - model.loss)
        average = loss if model.average is None else arm.average * model.average + (1 - arm.average) * loss
        return Model(loss, model.rounds + 1, average), clients

    def _client(
        self, name: str, point: int, values: Mapping[str, Any], model: Model, rng: np.random.Generator
    ) -> ClientReport:
        shift = self.noise * float(rng.normal())
        samples = int(rng.integers(20, 60))
        held_back = samples // 4
        if gain(values) < 0:
            return ClientReport(
                name, point, diverged=True, losses=(1.0, 9.0), step_ms=(1.0, 1.0), validation_samples=held_back
            )
        after = model.loss * (1 - gain(values))
        before = model.loss + shift
        return ClientReport(name, point, False, samples, (1.0,) * 20, (1.0,) * 20, before, after + shift, held_back)


def _after(client: ClientReport, model: Model) -> float:
    assert client.loss_after is not None
    assert client.loss_before is not None
    return model.loss + client.loss_after - client.loss_before
