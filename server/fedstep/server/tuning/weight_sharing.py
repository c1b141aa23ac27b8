"""What FedEx and FedPop have in common: clients of one round train one model with configurations of their own."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import ClientReport, Decision, Observation
from fedstep.server.tuning.halving import Halving, plan_halving
from fedstep.server.tuning.program import ProgramTuner
from fedstep.server.tuning.spending import clients_asked, rounds_in_all

_SHA_ARMS = 27  # Khodak et al. 2021, section 5: three eliminations at rate 3
_FEWEST_RANDOM_ARMS = 5  # both papers: 4,000 rounds in all and 800 an arm for CIFAR-10
_EVERYBODY = 32  # configurations for a round that asks all clients, however many come; they are dealt in turns
_LARGEST_LOSS = 5.0  # as losses are clipped everywhere: one client that diverged shall not outweigh a round


class WrapperOptions(BaseModel):
    """How many arms are tried, each with server hyper-parameters of its own, and how the budget is split among them.

    Attributes:
        wrapper: "sha" for successive elimination, "random" for random search, where every arm trains as long.
        arms: Arms at the start. 0: 27 under "sha", and a rung fewer while the one that survives would train for less
            than half of `longest`; under "random" as many as can train `budget.rounds_per_trial` rounds each, at
            least 5.
        elimination_rate: One arm of so many survives a rung.
        longest: Rounds of the arm that survives. 0: under "sha" those of a trial or a fifth of the budget, whichever is
            more; under "random" an equal share of the budget.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wrapper: Literal["sha", "random"] = "sha"
    arms: int = Field(default=0, strict=True, ge=0, le=1000)
    elimination_rate: int = Field(default=3, strict=True, ge=2, le=100)
    longest: int = Field(default=0, strict=True, ge=0)

    def plan(self, spec: StudySpec) -> Halving:
        """The rungs within the study's budget; one rung under "random"."""
        total, trial = rounds_in_all(spec), spec.budget.rounds_per_trial
        if self.wrapper == "sha":
            return self._halving(total, self.longest or max(trial, total // 5))
        arms = min(self.arms or max(_FEWEST_RANDOM_ARMS, total // trial), total)
        return Halving(arms, 1, (min(self.longest or total, total // arms),))

    def _halving(self, total: int, longest: int) -> Halving:
        plan = plan_halving(self.arms or _SHA_ARMS, self.elimination_rate, total, longest)
        while not self.arms and 2 * plan.stops[-1] < min(longest, total):
            plan = plan_halving(plan.trials // self.elimination_rate, self.elimination_rate, total, longest)
        return plan


class WeightSharingTuner(ProgramTuner):
    """A `ProgramTuner` of one-round arms, whose journal holds no more of a round than these methods read."""

    def observe(self, observation: Observation) -> Decision:
        """See `ProgramTuner.observe`."""
        clients = [_compact(client) for client in observation.clients]
        return super().observe(replace(observation, metrics={}, losses={}, clients=clients))

    def points_wanted(self, point: Hyperparameters) -> int:
        """How many configurations a round at that point deals out."""
        return clients_asked(self.spec, point) or _EVERYBODY

    def score(self, value: float | None) -> float:
        """A measured objective as a number of which less is better; the worst where there is none."""
        if value is None or math.isnan(value):
            return math.inf
        return value if self.spec.objective.direction == "minimize" else -value


@dataclass(frozen=True)
class ClientLoss:
    """What a client's validation set says of the configuration it trained with.

    Attributes:
        point: The configuration's position in `Arm.points`.
        loss: After training; at most 5, which is also the loss of a training that diverged.
        weight: The size of that set, as in Khodak et al. 2021, algorithm 2.
    """

    point: int
    loss: float
    weight: float


def client_losses(clients: Iterable[ClientReport]) -> list[ClientLoss]:
    """The losses of a round's clients; those that told none and did not diverge are left out.

    An update that diverged is not taken, so its client has no weight in the model. Here it is evidence.
    """
    told = [client for client in clients if client.diverged or client.loss_after is not None]
    return [ClientLoss(client.point, _bounded(client), client.validation_samples) for client in told]


def mean_loss(losses: Sequence[ClientLoss]) -> float:
    """The weighted mean; infinite when there are none."""
    total = sum(loss.weight for loss in losses)
    return sum(loss.loss * loss.weight for loss in losses) / total if total else math.inf


def _bounded(client: ClientReport) -> float:
    if client.diverged or client.loss_after is None or not client.loss_after < _LARGEST_LOSS:
        return _LARGEST_LOSS
    return client.loss_after


def _compact(client: ClientReport) -> ClientReport:
    """Without its name and its steps, and with no more digits than evidence has: the journal has a row a round."""
    after = None if client.loss_after is None else float(f"{client.loss_after:.6g}")
    return ClientReport(
        "", client.point, client.diverged, loss_after=after, validation_samples=client.validation_samples
    )
