"""What a study file may say of the tuner `ray`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fedstep.common.errors import FieldViolation
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError, show
from fedstep.server.tuning.optuna_parts import PartFactory, Seeds
from fedstep.server.tuning.optuna_space import suggest_point
from fedstep.server.tuning.ray_names import POPULATIONS, SCHEDULERS, VARIANTS
from fedstep.server.tuning.ray_parts import RayParts, Scheduler, Searcher, load
from fedstep.server.tuning.ray_space import PlainSpace, RaySpace, UnitSpace, searcher_faults
from fedstep.server.tuning.ray_world import RayWorld, Rules
from fedstep.server.tuning.spending import rounds_in_all

_LEAST_MEMBERS, _MOST_MEMBERS = 4, 16
_PERTURBATIONS = 10  # as the tuner `population`: in a tenth of a member's rounds

Made = tuple[Searcher, Scheduler]


class RayOptions(BaseModel):
    """What a study file may say of Ray Tune's parts.

    Attributes:
        searcher: The class name of a searcher; "": OptunaSearch, or with a population Ray's own random search.
        searcher_options: Its keyword arguments.
        scheduler: The class name of a scheduler.
        scheduler_options: Its keyword arguments.
        population: Trials of PopulationBasedTraining and PB2. 0: as many whole trials as the budget pays for, 4 to 16.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    searcher: str = ""
    searcher_options: dict[str, Any] = Field(default_factory=dict)
    scheduler: str = "AsyncHyperBandScheduler"
    scheduler_options: dict[str, Any] = Field(default_factory=dict)
    population: int = Field(default=0, strict=True, ge=0, le=100)

    def world(self, spec: StudySpec) -> RayWorld:
        """Both parts at work on a study; none of it has begun.

        Raises:
            MistakesError: Ray is not installed, a part cannot be made, or the searcher cannot search the space; the
                fields are relative to the study.
        """
        faults = self._population_faults() or searcher_faults(self._searcher, spec.space, "tuner.searcher")
        if faults:
            raise MistakesError(faults)
        load("ray.tune", "tuner.name")
        plain = self._searcher == "OptunaSearch" or self.scheduler == "PopulationBasedTraining"
        space = PlainSpace(spec.space) if plain else UnitSpace(spec.space)
        return RayWorld(lambda: self._made(spec, space), space, self._rules(spec))

    @property
    def _searcher(self) -> str:
        return self.searcher or (VARIANTS if self.scheduler in POPULATIONS else "OptunaSearch")

    def _population_faults(self) -> list[FieldViolation]:
        if self.scheduler not in SCHEDULERS:
            return []  # which is said where it is made
        if self.scheduler not in POPULATIONS:
            said = f"is for {' and '.join(sorted(POPULATIONS))}: {self.scheduler} has none."
            return [FieldViolation("tuner.population", said)] if self.population else []
        if self._searcher != VARIANTS:
            said = f"is {show(self.searcher)}: {self.scheduler} takes no searcher that learns, leave it out."
            return [FieldViolation("tuner.searcher", said)]
        return []

    def _rules(self, spec: StudySpec) -> Rules:
        lower, rounds = spec.objective.direction == "minimize", spec.budget.rounds_per_trial
        if self.scheduler not in POPULATIONS:
            return Rules(spec.seed, lower, rounds, rounds)
        return Rules(spec.seed, lower, None, self._interval(spec), self._members(spec))

    def _members(self, spec: StudySpec) -> int:
        whole = rounds_in_all(spec) // spec.budget.rounds_per_trial
        return self.population or min(max(whole, _LEAST_MEMBERS), _MOST_MEMBERS)

    def _interval(self, spec: StudySpec) -> int:
        """Rounds of a member between two perturbations."""
        told = self.scheduler_options.get("perturbation_interval")
        if isinstance(told, int | float):
            return max(1, round(told))
        return max(1, rounds_in_all(spec) // (self._members(spec) * _PERTURBATIONS))

    def _made(self, spec: StudySpec, space: RaySpace) -> Made:
        parts = RayParts(spec.objective.direction)
        faults: list[FieldViolation] = []
        made: list[Any] = []
        for make in (partial(self._made_searcher, spec, parts), partial(self._made_scheduler, spec, parts, space)):
            try:
                made.append(make())
            except MistakesError as error:
                faults += error.violations
        if faults:
            raise MistakesError(faults)
        return made[0], made[1]

    def _made_searcher(self, spec: StudySpec, parts: RayParts) -> Searcher:
        options, startup = dict(self.searcher_options), startup_trials(spec)
        seed = int(np.random.SeedSequence([spec.seed]).generate_state(1)[0])
        defaults: dict[str, Any] = {"seed": seed, "n_initial_points": startup, "random_search_steps": startup}
        if self._searcher == "OptunaSearch":
            defaults = {
                "space": partial(suggest_point, space=spec.space),
                "sampler": optuna_sampler(options, spec, 0, startup, "tuner.searcher_options"),
            }
        return parts.searcher(self._searcher, options, defaults, "tuner.searcher")

    def _made_scheduler(self, spec: StudySpec, parts: RayParts, space: RaySpace) -> Scheduler:
        rounds = spec.budget.rounds_per_trial
        defaults: dict[str, Any] = {"max_t": rounds, "log_config": False}
        if self.scheduler == "MedianStoppingRule":
            defaults["grace_period"] = 1
        if self.scheduler in POPULATIONS:
            defaults |= {"perturbation_interval": self._interval(spec), **space.explored()}
        return parts.scheduler(self.scheduler, self.scheduler_options, defaults, "tuner.scheduler")


def startup_trials(spec: StudySpec) -> int:
    """Trials that a searcher draws at random before it learns: its own 10 or 20 would be all that there are."""
    return min(10, max(3, spec.budget.trials // 4))


def optuna_sampler(options: dict[str, Any], spec: StudySpec, arm: int, startup: int, field: str) -> object:
    """Optuna's sampler for OptunaSearch, which takes it as an object: a table in a study file.

    Args:
        options: The searcher's, of which `sampler` and `seed` are taken out.
        spec: The study.
        arm: For `Seeds`.
        startup: Trials that are drawn at random first.
        field: Where the options stand.

    Raises:
        MistakesError: There is no such sampler, or not with these options.
    """
    where = f"{field}.sampler"
    told = options.pop("sampler", {"name": "TPESampler"})
    seed = options.pop("seed", spec.seed)
    if not isinstance(told, Mapping) or not isinstance(told.get("name"), str):
        said = f'is {show(told)}: it must be a table such as {{ name = "TPESampler" }}.'
        raise MistakesError([FieldViolation(where, said)])
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        said = f"is {show(seed)}: it must be a whole number, at least 0."
        raise MistakesError([FieldViolation(f"{field}.seed", said)])
    factory = PartFactory(Seeds(seed, arm), startup, spec.budget.rounds_per_trial)
    rest = {key: value for key, value in told.items() if key != "name"}
    try:
        return factory.sampler(told["name"], rest, where)
    except MistakesError as error:  # whose options stand beside the name here
        faults = [FieldViolation(v.field.replace(f"{where}_options", where), v.description) for v in error.violations]
        raise MistakesError(faults) from None
