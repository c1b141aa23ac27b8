"""Ray Tune's searchers inside the step-wise tuner: they propose displacements from the incumbent."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fedstep.common.errors import FieldViolation
from fedstep.common.hyperparameters import Value
from fedstep.common.parameters import CategoricalParameter, Parameter
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError
from fedstep.server.tuning.proposers import Attempt, Proposer, Question
from fedstep.server.tuning.ray_names import SEARCHERS
from fedstep.server.tuning.ray_options import optuna_sampler
from fedstep.server.tuning.ray_parts import METRIC, ROUNDS, RayParts, Searcher, seeded
from fedstep.server.tuning.ray_space import domains_of

PREFIX = "ray:"
"""What a study file writes before a searcher's name, as in `sampler = "ray:HyperOptSearch"`."""


class RayProposer(Proposer):
    """Asks one of Ray's searchers, made anew for every question and told of the earlier generations.

    Its space is the displacement, [-1, 1] widths a number, and a choice by its position: the same in every generation.
    The attempts so far are its first points, in their order; it is told what each was worth, and proposes from there.

    Args:
        spec: The study.
        name: The searcher's class name.
        options: Its keyword arguments.
        startup_trials: Attempts before it proposes by a model.
    """

    def __init__(self, spec: StudySpec, name: str, options: Mapping[str, Any], startup_trials: int) -> None:
        self._spec = spec
        self._name = name
        self._options = options
        self._startup_trials = startup_trials

    def draws(self, question: Question) -> Iterator[tuple[dict[str, Value], Mapping[str, Any]]]:
        """See `Proposer.draws`."""
        moving = dict(question.moving())
        with seeded(self._spec.seed, question.generation):
            searcher = self.searcher(question.generation, [_told(attempt, moving) for attempt in question.history])
            searcher.set_search_properties(METRIC, "max", domains_of(moving, -1.0, 1.0))
            for number, attempt in enumerate(question.history):
                searcher.suggest(str(number))
                searcher.on_trial_complete(str(number), {METRIC: attempt.value, ROUNDS: 1})
        number = len(question.history)
        while True:
            with seeded(self._spec.seed, question.generation, number):
                config = searcher.suggest(str(number))
            if not isinstance(config, dict):
                return
            yield _displacement(config, moving), {}
            with seeded(self._spec.seed, question.generation, number):
                searcher.on_trial_complete(str(number), error=True)
            number += 1

    def searcher(self, generation: int, points: list[dict[str, Any]]) -> Searcher:
        """The searcher, seeded for that generation, with its first points.

        Raises:
            MistakesError: There is none of that name, a package is missing, or an option is wrong.
        """
        options = dict(self._options)
        seed = int(np.random.SeedSequence([self._spec.seed, generation]).generate_state(1)[0])
        startup = self._startup_trials
        defaults: dict[str, Any] = {"seed": seed, "n_initial_points": startup, "random_search_steps": startup}
        if self._name == "OptunaSearch":
            defaults = {"sampler": optuna_sampler(options, self._spec, generation, startup, "tuner.sampler_options")}
        defaults["points_to_evaluate"] = points or None
        return RayParts("maximize").searcher(self._name, options, defaults, "tuner.sampler")


def check_ray_sampler(sampler: str, options: Mapping[str, Any], spec: StudySpec) -> None:
    """Checks that challengers can be proposed so.

    Args:
        sampler: As the study file has it, with its prefix.
        options: The searcher's.
        spec: The study.

    Raises:
        MistakesError: They cannot; the fields are relative to the study.
    """
    name = sampler.removeprefix(PREFIX)
    choices = [other for other, found in spec.space.parameters.items() if isinstance(found, CategoricalParameter)]
    if name == "BayesOptSearch" and choices:
        others = [f'"{PREFIX}{other}"' for other in SEARCHERS if other != name]
        said = f"is {name}, which moves numbers only, and `{choices[0]}` is a choice: take {' or '.join(others)}."
        raise MistakesError([FieldViolation("tuner.sampler", said)])
    with seeded(spec.seed):
        RayProposer(spec, name, options, 1).searcher(0, [])


def _displacement(config: Mapping[str, Any], moving: Mapping[str, Parameter]) -> dict[str, Value]:
    return {
        name: parameter.choices[int(config[name])]
        if isinstance(parameter, CategoricalParameter)
        else float(config[name])
        for name, parameter in moving.items()
    }


def _told(attempt: Attempt, moving: Mapping[str, Parameter]) -> dict[str, Any]:
    """The attempt in the searcher's terms."""
    return {
        name: parameter.choices.index(attempt.displacement[name])
        if isinstance(parameter, CategoricalParameter)
        else min(max(float(attempt.displacement[name]), -1.0), 1.0)
        for name, parameter in moving.items()
    }
