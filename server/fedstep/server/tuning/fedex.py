"""FedEx: a distribution over client configurations, learnt while one model is trained.

Khodak et al., "Federated Hyperparameter Tuning: Challenges, Baselines, and Connections to Weight-Sharing", NeurIPS
2021, arXiv 2106.04502. Algorithm 2 is `exponentiated.py`. It tunes what clients act on; what the server acts on is
tuned by a wrapper, random search or successive elimination (their algorithm 1), of which every arm is a FedEx of its
own: server hyper-parameters, a model, and client configurations drawn in a box around one (section 3, "local
perturbations").
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.exponentiated import ExponentiatedGradient, Schedule
from fedstep.server.tuning.halving import Halving
from fedstep.server.tuning.neighbourhood import client_names, draw, near
from fedstep.server.tuning.program import Program, Result
from fedstep.server.tuning.spending import rounds_left
from fedstep.server.tuning.weight_sharing import WeightSharingTuner, WrapperOptions, client_losses, mean_loss


class FedexOptions(WrapperOptions):
    """What a study file may say of FedEx; the defaults are those of the paper's experiments.

    Attributes:
        configurations: Client configurations of an arm, k.
        radius: ε of the box they are drawn in: half its width, as a share of every range.
        schedule: The step size of the exponentiated gradient (`exponentiated.Schedule`).
        baseline_discount: γ of the baseline; unset: drawn from [0, 1] for every arm.
    """

    configurations: int = Field(default=27, strict=True, ge=1, le=1000)
    radius: float = Field(default=0.1, gt=0.0, le=1.0)
    schedule: Schedule = "aggressive"
    baseline_discount: float | None = Field(default=None, ge=0.0, le=1.0)


@dataclass
class _Trial:
    """One arm of the wrapper.

    Attributes:
        index: Its number among the arms.
        points: Its client configurations; the server's part is the same in all.
        gradient: θ over them.
        rounds: Trained so far.
        head: The last of its one-round arms; None before the first.
        loss: Mean of the last cohort's losses after training.
        score: The measured objective of its head, less is better; infinite where it was not measured.
        failed: It cannot go on.
    """

    index: int
    points: list[Hyperparameters]
    gradient: ExponentiatedGradient
    rounds: int = 0
    head: Arm | None = None
    loss: float = math.inf
    score: float = math.inf
    failed: bool = False


class FedexTuner(WeightSharingTuner):
    """FedEx inside random search or successive elimination.

    A round is an `Arm` whose clients train with configurations drawn from θ. Arms of the wrapper train one after
    another through a rung, or as many together as the study trains at once. Only the end of a rung is measured on the
    evaluation cohort, because only elimination reads it.
    """

    def __init__(self, spec: StudySpec, options: FedexOptions) -> None:
        """Checks the space.

        Raises:
            InvalidInputError: No parameter of the space is one that clients act on.
        """
        super().__init__(spec)
        self._options = options
        if not client_names(spec.space):
            fault = FieldViolation("space", 'has no parameter of scope "client", and FedEx tunes those: add one.')
            raise InvalidInputError(f"{fault.field} {fault.description}", [fault])

    def program(self) -> Program:
        """Rung by rung; at the end the arm that measured best, whenever that was."""
        plan = self._options.plan(self.spec)
        alive = [self._trial(index) for index in range(plan.trials)]
        best: tuple[float, Arm] | None = None
        behind = 0
        for stop in plan.stops:
            rounds = stop - behind
            if len(alive) == 1 and stop == plan.stops[-1]:
                rounds = max(rounds, rounds_left(self.spec, self.spent))  # what failed arms have left over
            for start in range(0, len(alive), self.spec.parallel_trials):
                group = alive[start : start + self.spec.parallel_trials]
                yield from self._train(group, rounds, alive, best)
            alive = [trial for trial in alive if not trial.failed]
            for trial in alive:
                if trial.head is not None and trial.score < (best[0] if best else math.inf):
                    best = trial.score, trial.head
            if stop != plan.stops[-1]:
                alive = self._eliminate(alive, plan, stop)
            behind = stop
        return best[1].number if best else None

    def _trial(self, index: int) -> _Trial:
        """An arm of the wrapper: one point of the space, and client configurations around it."""
        rng = np.random.default_rng([self.spec.seed, index])
        space, options = self.spec.space, self._options
        base = draw(space, rng)
        discount = float(rng.random()) if options.baseline_discount is None else options.baseline_discount
        names = client_names(space)
        others = [near(space, base, options.radius, names, rng) for _ in range(options.configurations - 1)]
        gradient = ExponentiatedGradient(options.configurations, options.schedule, discount)
        return _Trial(index, [space.from_unit(units) for units in (base, *others)], gradient)

    def _train(
        self, group: Sequence[_Trial], rounds: int, alive: Sequence[_Trial], best: tuple[float, Arm] | None
    ) -> Generator[list[Arm], list[Result], None]:
        """Trains these for so many rounds, and has the last one measured."""
        for k in range(rounds):
            going = [trial for trial in group if not trial.failed]
            if not going or rounds_left(self.spec, self.spent) < len(going):
                return
            drawn = [self._draw(trial) for trial in going]
            batch = [
                self._round(trial, indices, measured=k == rounds - 1)
                for trial, indices in zip(going, drawn, strict=True)
            ]
            results = yield batch
            for trial, indices, result in zip(going, drawn, results, strict=True):
                self._learn(trial, indices, result)
            heads = [trial.head for trial in alive if trial.head is not None and not trial.failed]
            self.keep(*heads, *([best[1]] if best else []))
            self._deliver_likeliest(alive)

    def _draw(self, trial: _Trial) -> list[int]:
        """A client configuration for each client of the trial's next round."""
        rng = np.random.default_rng([self.spec.seed, trial.index, trial.rounds])
        return trial.gradient.draw(self.points_wanted(trial.points[0]), rng)

    def _round(self, trial: _Trial, drawn: Sequence[int], measured: bool) -> Arm:
        return self.arm(
            trial.points[trial.gradient.likeliest],
            parents=() if trial.head is None else (trial.head.number,),
            rounds=1,
            phase=f"arm {trial.index}",
            every_round=False,
            measured=measured,
            points=tuple(trial.points[index] for index in drawn),
            local_validation=True,
        )

    def _learn(self, trial: _Trial, drawn: Sequence[int], result: Result) -> None:
        """The model of the round becomes the trial's, and its clients' losses move θ."""
        trial.failed = bool(result.failed)
        if trial.failed:
            return
        losses = client_losses(result.clients)
        trial.gradient.update(
            [drawn[loss.point] for loss in losses], [loss.loss for loss in losses], [loss.weight for loss in losses]
        )
        trial.head, trial.rounds = result.arm, trial.rounds + 1
        trial.loss, trial.score = mean_loss(losses), self.score(result.value)

    def _deliver_likeliest(self, alive: Sequence[_Trial]) -> None:
        """Between measurements the clients' own losses say which model is the best."""
        best = min((trial for trial in alive if not trial.failed), key=lambda trial: trial.loss, default=None)
        if best is not None and best.head is not None:
            self.deliver(best.head)

    def _eliminate(self, alive: Sequence[_Trial], plan: Halving, stop: int) -> list[_Trial]:
        """The best by the measured objective."""
        ranked = sorted(alive, key=lambda trial: (trial.score, trial.loss, trial.index))
        before = plan.trials // plan.rate ** plan.stops.index(stop)
        staying = ranked[: plan.survivors(before)]
        self.note(
            "elimination",
            f"After {stop} rounds {len(staying)} of {len(alive)} arms go on.",
            rounds=stop,
            arms=[trial.index for trial in staying],
            eliminated=[trial.index for trial in ranked[len(staying) :]],
            entropy=[round(trial.gradient.entropy, 3) for trial in staying],
        )
        return staying
