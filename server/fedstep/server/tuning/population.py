"""FedPop: a population of arms whose server and client configurations evolve while they train.

Chen et al., "FedPop: Federated Population-based Hyperparameter Tuning", AAAI 2025, arXiv 2308.08634. Inside an arm
every client of a round has a configuration of its own, and the worst follow the best (FedPop-L); now and then the
worst arms go on from the models and configurations of the best (FedPop-G). The updates are in `evolution.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.evolution import (
    EvolutionSettings,
    Genome,
    annealed,
    evolve_clients,
    evolved_copy,
    genome_around,
    pairs,
)
from fedstep.server.tuning.halving import Halving
from fedstep.server.tuning.neighbourhood import draw
from fedstep.server.tuning.program import Program, Result
from fedstep.server.tuning.spending import rounds_left
from fedstep.server.tuning.weight_sharing import WeightSharingTuner, WrapperOptions, client_losses, mean_loss

_ARMS, _ROUNDS = 0, 1  # streams of random numbers


class PopulationOptions(WrapperOptions):
    """What a study file may say of FedPop; the defaults are the authors'.

    Attributes:
        radius: ε_0 (`EvolutionSettings`).
        resample: p_re.
        quantile: The share that is replaced.
        discount: Of a client configuration's losses by their age.
        local_every: Rounds between two FedPop-L; 1 in algorithm 1, 5 in the authors' code for ten times our rounds.
        global_every: Rounds between two FedPop-G. 0: a tenth of an arm's rounds (20 of 200 in the authors' FEMNIST).
    """

    radius: float = Field(default=0.1, gt=0.0, le=0.5)
    resample: float = Field(default=0.1, ge=0.0, le=1.0)
    quantile: float = Field(default=0.3, gt=0.0, le=0.5)
    discount: float = Field(default=0.9, ge=0.0, le=1.0)
    local_every: int = Field(default=1, strict=True, ge=1)
    global_every: int = Field(default=0, strict=True, ge=0)

    @property
    def evolution(self) -> EvolutionSettings:
        """The constants of the updates."""
        return EvolutionSettings(self.radius, self.resample, self.quantile, self.discount)


@dataclass
class _Member:
    """One arm of the population.

    Attributes:
        index: Its number; a replaced member keeps it.
        genome: Its configurations.
        told: Losses of each slot since the last FedPop-L, in order of time.
        head: The last of its one-round arms; None before the first.
        loss: Mean of the last cohort's losses after training.
        score: The measured objective of its head, less is better; infinite where it was not measured.
        failed: Its last round could not be trained.
    """

    index: int
    genome: Genome
    told: list[list[float]]
    head: Arm | None = None
    loss: float = math.inf
    score: float = math.inf
    failed: bool = False


class PopulationTuner(WeightSharingTuner):
    """FedPop inside random search (a population that stays) or successive elimination.

    All members train one round at a time, since FedPop-G compares them. They are compared by the losses that their
    clients measure after training, as in the paper; only the ends of rungs are measured on the evaluation cohort, for
    elimination and for the choice of the model to deliver.
    """

    def __init__(self, spec: StudySpec, options: PopulationOptions) -> None:
        super().__init__(spec)
        self._options = options
        self._settings = options.evolution

    def program(self) -> Program:
        """Round by round: train, evolve inside the members, evolve between them, eliminate."""
        plan = self._options.plan(self.spec)
        members = [self._member(index) for index in range(plan.trials)]
        total, done = plan.stops[-1], 0
        best: tuple[float, Arm] | None = None
        while done < total and rounds_left(self.spec, self.spent) >= len(members):
            alone = len(members) == 1 and done >= (plan.stops[-2] if len(plan.stops) > 1 else 0)
            if alone:
                total = max(total, done + rounds_left(self.spec, self.spent))  # what early failures have left over
            measured = done + 1 == total or done + 1 in plan.stops
            results = yield [self._round(member, measured) for member in members]
            done += 1
            for member, result in zip(members, results, strict=True):
                self._learn(member, result)
            if measured:
                best = min([*_measured(members), *([best] if best else [])], key=lambda pair: pair[0], default=None)
            self.keep(*(member.head for member in members if member.head), *([best[1]] if best else []))
            self._deliver_likeliest(members)
            if done in plan.stops[:-1]:
                members = self._eliminate(members, plan, done)
            if done < total:
                self._evolve(members, done, plan.stops[-1])
        return best[1].number if best else None

    def _member(self, index: int) -> _Member:
        return self._fresh(index, np.random.default_rng([self.spec.seed, _ARMS, index]))

    def _fresh(self, index: int, rng: np.random.Generator) -> _Member:
        """A member that starts from the study's initial model, anywhere in the space."""
        space = self.spec.space
        base = draw(space, rng)
        size = self.points_wanted(space.from_unit(base))
        genome = genome_around(space, base, size, self._options.radius, rng)
        return _Member(index, genome, [[] for _ in range(size)])

    def _round(self, member: _Member, measured: bool) -> Arm:
        space = self.spec.space
        return self.arm(
            space.from_unit(member.genome.base),
            parents=() if member.head is None else (member.head.number,),
            rounds=1,
            phase=f"member {member.index}",
            every_round=False,
            measured=measured,
            points=tuple(space.from_unit(slot) for slot in member.genome.slots),
            local_validation=True,
        )

    def _learn(self, member: _Member, result: Result) -> None:
        """The model of the round becomes the member's, and its clients' losses are its slots'."""
        member.failed, member.loss, member.score = bool(result.failed), math.inf, math.inf
        if member.failed:
            return
        losses = client_losses(result.clients)
        for loss in losses:
            member.told[loss.point].append(loss.loss)
        member.head, member.loss, member.score = result.arm, mean_loss(losses), self.score(result.value)

    def _evolve(self, members: list[_Member], done: int, total: int) -> None:
        """FedPop-L and FedPop-G, each when its turn has come; a member that failed is replaced at once."""
        rng = np.random.default_rng([self.spec.seed, _ROUNDS, done])
        progress = done / total
        if done % self._options.local_every == 0:
            for member in members:
                evolve_clients(self.spec.space, member.genome, member.told, self._settings, progress, rng)
                member.told = [[] for _ in member.told]
        self._replace_failed(members, progress, rng)
        every = self._options.global_every or max(1, round(total / 10))
        if done % every == 0 and len(members) > 1:
            for worse, better in pairs([member.loss for member in members], self._options.quantile, rng):
                self._replace(members, worse, better, progress, rng)

    def _replace_failed(self, members: list[_Member], progress: float, rng: np.random.Generator) -> None:
        """A diverged member goes on as a copy of any other, as in the authors' code; alone, as a new one."""
        well = [k for k, member in enumerate(members) if not member.failed]
        for k, member in enumerate(members):
            if member.failed and well:
                self._replace(members, k, well[int(rng.integers(len(well)))], progress, rng)
            elif member.failed:
                members[k] = self._fresh(member.index, rng)

    def _replace(
        self, members: list[_Member], worse: int, better: int, progress: float, rng: np.random.Generator
    ) -> None:
        """The worse member takes over the better one's model, and its configurations perturbed."""
        source, index = members[better], members[worse].index
        genome = evolved_copy(self.spec.space, source.genome, self._settings, progress, rng)
        members[worse] = _Member(index, genome, [[] for _ in genome.slots], source.head, source.loss, source.score)
        self.note(
            "exploitation",
            f"Member {index} goes on from member {source.index}'s model with perturbed configurations.",
            member=index,
            source=source.index,
            loss=source.loss if math.isfinite(source.loss) else None,
            radius=annealed(self._options.radius, progress),
        )

    def _deliver_likeliest(self, members: Sequence[_Member]) -> None:
        """Between measurements the clients' own losses say which model is the best."""
        best = min((member for member in members if not member.failed), key=lambda member: member.loss, default=None)
        if best is not None and best.head is not None:
            self.deliver(best.head)

    def _eliminate(self, members: Sequence[_Member], plan: Halving, stop: int) -> list[_Member]:
        """The best by the measured objective."""
        ranked = sorted(members, key=lambda member: (member.score, member.loss, member.index))
        staying = ranked[: plan.survivors(len(members))]
        self.note(
            "elimination",
            f"After {stop} rounds {len(staying)} of {len(members)} members go on.",
            rounds=stop,
            arms=[member.index for member in staying],
            eliminated=[member.index for member in ranked[len(staying) :]],
        )
        return staying


def _measured(members: Sequence[_Member]) -> list[tuple[float, Arm]]:
    return [(m.score, m.head) for m in members if m.head is not None and not m.failed and m.score < math.inf]
