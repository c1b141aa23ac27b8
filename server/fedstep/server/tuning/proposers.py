"""Who proposes the next challenger inside the trust region: Gaussian steps, or any of Optuna's samplers."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.parameters import CategoricalParameter, FloatParameter, Parameter
from fedstep.common.space import Space
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError
from fedstep.server.tuning.optuna_parts import PartFactory, Seeds
from fedstep.server.tuning.optuna_storage import without_info
from fedstep.server.tuning.trust_region import Displacement, TrustRegion

RANDOM = "random"
"""The name of Gaussian steps in a study file."""

_TRIES = 32
# They go through points of the space itself, and a displacement is none.
_OF_THE_SPACE = ("GridSampler", "BruteForceSampler", "PartialFixedSampler")


@dataclass(frozen=True)
class Attempt:
    """A challenger of an earlier generation, and what it was worth.

    Attributes:
        generation: From 1.
        displacement: From the incumbent of that generation.
        value: Its paired improvement over the incumbent, relative to the incumbent's loss; more is better.
        memory: What the sampler noted of it.
    """

    generation: int
    displacement: Displacement
    value: float
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What a proposer is asked.

    Attributes:
        region: Where.
        generation: From 1.
        lean: -1 for a lower learning rate, 1 for a higher one, 0 for either.
        history: The attempts so far, oldest first.
    """

    region: TrustRegion
    generation: int
    lean: int = 0
    history: Sequence[Attempt] = ()

    @property
    def space(self) -> Space:
        """The study's."""
        return self.region.scales.space

    def moving(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters that have another value to move to."""
        for name, parameter in self.space.ordered.items():
            if name not in self.region.frozen and _has_values(parameter):
                yield name, parameter


@dataclass(frozen=True)
class Proposal:
    """An answer.

    Attributes:
        point: Of the study's space.
        displacement: How it was found from the incumbent.
        memory: What the sampler wants to read again in an `Attempt`.
    """

    point: Hyperparameters
    displacement: Displacement
    memory: Mapping[str, Any] = field(default_factory=dict)


class Proposer(ABC):
    """Proposes challengers.

    An implementation draws displacements. It keeps no state beside the question's history: the same question has the
    same answer, which is what a restart relies on.
    """

    def propose(self, question: Question) -> Proposal | None:
        """A point of the region that is not its centre; None when none was found."""
        return next(self.proposals(question), None)

    def proposals(self, question: Question) -> Iterator[Proposal]:
        """All that are found, best first."""
        for displacement, memory in itertools.islice(self.draws(question), _TRIES):
            leaning = _leaning(displacement, question.lean)
            point = question.region.at(leaning)
            if point != dict(question.region.center):
                yield Proposal(point, leaning, memory)

    @abstractmethod
    def draws(self, question: Question) -> Iterator[tuple[dict[str, Value], Mapping[str, Any]]]:
        """Displacements, best first, each with what is to be remembered of it."""


class GaussianProposer(Proposer):
    """Moves each coordinate with some chance: by a normal step of the region's width, or to another choice."""

    def __init__(self, seed: int, move_chance: float) -> None:
        self._seed = seed
        self._move_chance = move_chance

    def draws(self, question: Question) -> Iterator[tuple[dict[str, Value], Mapping[str, Any]]]:
        """See `Proposer.draws`; there is no end to them."""
        rng = np.random.default_rng([self._seed, question.generation])
        while True:
            yield {name: self._step(name, parameter, question, rng) for name, parameter in question.moving()}, {}

    def _step(self, name: str, parameter: Parameter, question: Question, rng: np.random.Generator) -> Value:
        # The same draws for every parameter, whether it moves or not: the others do not depend on it.
        chance, normal, uniform = float(rng.random()), float(rng.normal()), float(rng.random())
        moves = chance < self._move_chance or (name == "lr" and question.lean != 0)
        if not isinstance(parameter, CategoricalParameter):
            return normal if moves else 0.0
        now = question.region.center.get(name)
        others = [choice for choice in parameter.choices if choice != now]
        return others[int(uniform * len(others))] if moves or now is None else now


class OptunaProposer(Proposer):
    """Asks one of Optuna's samplers, of a study in memory that holds the earlier generations as trials.

    Its space is the displacement, [-1, 1] widths a number: it stays as it is where the incumbent and the width do
    not, since Optuna's samplers take a range that changed for another parameter.
    """

    def __init__(self, spec: StudySpec, name: str, options: Mapping[str, Any], startup_trials: int) -> None:
        self._spec = spec
        self._name = name
        self._options = options
        self._startup_trials = startup_trials

    def draws(self, question: Question) -> Iterator[tuple[dict[str, Value], Mapping[str, Any]]]:
        """See `Proposer.draws`."""
        distributions = displacement_space(question)
        with without_info():
            study = optuna.create_study(sampler=self.sampler(question.generation), direction="maximize")
        study.add_trials([prior(attempt, distributions) for attempt in question.history])
        for _ in range(question.generation if self._name == "QMCSampler" else 0):
            study.ask(distributions)  # its sequence is counted by the study, and every generation's is new
        while True:
            trial = study.ask(distributions)
            memory = study.get_trials(deepcopy=False)[-1].system_attrs
            yield dict(trial.params), dict(memory)
            study.tell(trial, state=TrialState.FAIL)

    def sampler(self, generation: int) -> optuna.samplers.BaseSampler:
        """The sampler, seeded for that generation.

        Raises:
            MistakesError: Optuna has none of that name, or not with those options.
        """
        seeds = Seeds(self._spec.seed, generation)
        factory = PartFactory(seeds, self._startup_trials, self._spec.budget.rounds_per_trial)
        return factory.sampler(self._name, self._options, "tuner.sampler")


def displacement_space(question: Question) -> dict[str, BaseDistribution]:
    """Optuna's distributions of a displacement: the same in every generation of a study."""
    return {
        name: CategoricalDistribution(parameter.choices)
        if isinstance(parameter, CategoricalParameter)
        else FloatDistribution(-1.0, 1.0)
        for name, parameter in question.moving()
    }


def prior(attempt: Attempt, distributions: Mapping[str, BaseDistribution], **attributes: Any) -> FrozenTrial:
    """An attempt as a complete trial of Optuna's, with those user attributes."""
    params = {
        name: min(max(float(attempt.displacement[name]), -1.0), 1.0)
        if isinstance(distribution, FloatDistribution)
        else attempt.displacement[name]
        for name, distribution in distributions.items()
        if name in attempt.displacement
    }
    return create_trial(
        value=attempt.value,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={"generation": attempt.generation, **attributes},
        system_attrs=dict(attempt.memory),
    )


def check_sampler(name: str, options: Mapping[str, Any], spec: StudySpec) -> None:
    """Checks that challengers can be proposed so.

    Raises:
        MistakesError: They cannot; the fields are relative to the study.
    """
    if name == RANDOM:
        if options:
            raise MistakesError(
                [FieldViolation("tuner.sampler_options", 'are for Optuna\'s samplers: "random" has none.')]
            )
        return
    if name in _OF_THE_SPACE:
        said = f'is {name}, which cannot search a neighbourhood: take "random", TPESampler or another one.'
        raise MistakesError([FieldViolation("tuner.sampler", said)])
    OptunaProposer(spec, name, options, 1).sampler(0)


def _leaning(displacement: dict[str, Value], lean: int) -> dict[str, Value]:
    """The displacement with a learning rate that goes the way it should."""
    step = displacement.get("lr")
    if lean == 0 or not isinstance(step, float):
        return displacement
    return {**displacement, "lr": lean * abs(step)}


def _has_values(parameter: Parameter) -> bool:
    if isinstance(parameter, CategoricalParameter):
        return len(parameter.choices) > 1
    if isinstance(parameter, FloatParameter) and parameter.step is None:
        return parameter.low < parameter.high
    return parameter.last_step > 0
