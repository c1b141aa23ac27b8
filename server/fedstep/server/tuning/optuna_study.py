"""Optuna as a tuner: any sampler and any pruner, the study in the coordinator's own database."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field

from fedstep.common.errors import AlreadyExistsError, FieldViolation, InternalError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError
from fedstep.server.tuning.base import Arm, Decision, Observation, Prices, ProposeContext, Tuner
from fedstep.server.tuning.optuna_parts import PartFactory, Seeds
from fedstep.server.tuning.optuna_space import distributions_of, space_faults, suggest_point, suggested
from fedstep.server.tuning.optuna_storage import (
    DATABASE_ERRORS,
    DELIVERED,
    explained,
    name_value,
    open_storage,
    without_info,
)
from fedstep.server.tuning.scales import Scales

_ARM = "fedstep_trial"
_FAILED = "fedstep_failed"
_PREDICTED = "predicted_seconds"

# They learn from complete trials only: of a pruned one they would never hear.
_BLIND_TO_PRUNED = ("GPSampler", "CmaEsSampler", "NSGAIISampler", "NSGAIIISampler")


class OptunaOptions(BaseModel):
    """What a study file may say of Optuna.

    Attributes:
        sampler: The class name of a public sampler.
        sampler_options: Its keyword arguments.
        pruner: The class name of a public pruner.
        pruner_options: Its keyword arguments.
        enqueue: Points to try before the sampler's own, as Optuna's `enqueue_trial` does. What one leaves out is the
            default's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: str = "TPESampler"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    pruner: str = "MedianPruner"
    pruner_options: dict[str, Any] = Field(default_factory=dict)
    enqueue: list[dict[str, Any]] = Field(default_factory=list)

    def check(self, spec: StudySpec) -> None:
        """Makes both parts once, to see that they can be made and that the sampler can search the space.

        Raises:
            MistakesError: They cannot; the fields are relative to `tuner`.
        """
        factory = _factory(spec, 0)
        faults: list[FieldViolation] = []
        for make, name, options, where in (
            (factory.sampler, self.sampler, self.sampler_options, "tuner.sampler"),
            (factory.pruner, self.pruner, self.pruner_options, "tuner.pruner"),
        ):
            try:
                make(name, options, where)
            except MistakesError as error:
                faults += error.violations
        if not faults:
            faults += space_faults(self.sampler, self.sampler_options, spec.space, "tuner.sampler")
        for number, point in enumerate(self.enqueue):
            faults += spec.space.value_faults(point, f"tuner.enqueue.{number}")
        if len(self.enqueue) > spec.budget.trials:
            told = f"has {len(self.enqueue)} points for {spec.budget.trials} trials: leave some out, or"
            faults.append(FieldViolation("tuner.enqueue", f"{told} set budget.trials to {len(self.enqueue)}."))
        if self.enqueue and "GridSampler" in _names(self.sampler, self.sampler_options):
            faults.append(FieldViolation("tuner.enqueue", "is for samplers that choose: GridSampler has its own list."))
        if faults:
            raise MistakesError(faults)


@dataclass(frozen=True)
class _OpenArm:
    """An arm in training.

    Attributes:
        trial: Optuna's.
        reported: The objective by round, as Optuna has it.
    """

    trial: optuna.Trial
    reported: dict[int, float] = field(default_factory=dict)


class OptunaTuner(Tuner):
    """Asks an Optuna study for arms and tells it what became of them.

    An arm is found in the study by its number, kept as the user attribute `fedstep_trial`: Optuna counts arms that a
    crash lost, fedstep does not. Every arm has a sampler of its own, seeded by the study's seed and the arm's number;
    what samplers remember is in the database.

    What all rounds of an arm are expected to take is the user attribute `predicted_seconds`, where the fleet's pace is
    known: for people and their own plots, no sampler reads it.

    An arm that failed is told so that the sampler keeps away from its neighbourhood. It is told PRUNED with a violated
    constraint, which TPE ranks behind every other trial; samplers that read complete trials only are told the worst
    value seen so far. A trial told FAIL, as Optuna would have it, teaches no sampler anything.
    """

    def __init__(
        self, spec: StudySpec, options: OptunaOptions, storage_url: str, defaults: Mapping[str, Value]
    ) -> None:
        """Opens the database and makes Optuna's tables where there are none.

        Args:
            spec: The study; its name is the name of Optuna's study.
            options: Checked ones, see `OptunaOptions.check`.
            storage_url: SQLAlchemy's URL of the coordinator's database.
            defaults: Every hyper-parameter's, for points that are to be tried first.

        Raises:
            StorageError: The database cannot be used.
        """
        self._spec = spec
        self._options = options
        self._url = storage_url
        self._pruner = _factory(spec, 0).pruner(options.pruner, options.pruner_options, "tuner.pruner")
        scales = Scales(spec, defaults)
        self._enqueued = [scales.default_point(point) for point in options.enqueue]
        self._open: dict[int, _OpenArm] = {}
        self._study: _Study | None = None
        self._storage = open_storage(storage_url)

    def propose(self, context: ProposeContext) -> list[Arm]:
        """One arm a slot; none when the sampler has tried all that there is.

        Raises:
            AlreadyExistsError: At the first call of a new study: Optuna's tables hold another of that name.
            StorageError: The database cannot be used.
        """
        with explained(self._url):
            study = self._study or self._create()
            arms: list[Arm] = []
            for number in range(context.next_number, context.next_number + context.slots):
                if self._exhausted(study):
                    break
                arms.append(self._ask(study, number, context.prices))
            return arms

    def observe(self, observation: Observation) -> Decision:
        """Reports the round to the study and asks its pruner.

        Raises:
            InternalError: The arm was never proposed.
            StorageError: The database cannot be used.
        """
        with explained(self._url):
            study, arm = self._study, self._open.get(observation.number)
            if study is None:
                raise self._unknown(observation.number)
            if arm is None:
                return self._decided(study, observation)
            decision = self._decide(study, arm, observation)
            if decision is not Decision.CONTINUE:
                del self._open[observation.number]
            return decision

    def state(self) -> dict[str, Any]:
        """Whether the sampler has tried everything; all else is in the database."""
        return {"exhausted": self._study is not None and self._study.stopped}

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Takes up the study in the database: open arms go on, every other RUNNING trial is told FAIL.

        Raises:
            StorageError: The database cannot be used.
        """
        with explained(self._url):
            study = self._study = self._load() or self._create()
            wanted = {arm.number: arm for arm in open_arms}
            trials = self._trials(study)
            latest = {trial.user_attrs[_ARM]: trial for trial in trials if _ARM in trial.user_attrs}
            self._open = {}
            for frozen in trials:
                number = frozen.user_attrs.get(_ARM)
                if frozen.state.is_finished():
                    continue
                if number in wanted and frozen is latest[number]:
                    self._open[number] = _OpenArm(self._attach(study, frozen), dict(frozen.intermediate_values))
                else:
                    study.tell(frozen.number, state=TrialState.FAIL)
            for number, arm in wanted.items():
                if number not in latest:
                    self._open[number] = _OpenArm(self._add(study, number, arm.hyperparameters))
            # Last: to a sampler that tries every point, what was just told FAIL is tried, and it may have stopped.
            study.stopped = bool(state.get("exhausted", False))

    def concluded(self, delivered: str) -> None:
        """Notes it at the study: Optuna's best trial is the one with the best last value, the earlier of two.

        Raises:
            StorageError: The database cannot be used.
        """
        with explained(self._url):
            if self._study is not None:
                self._study.set_user_attr(DELIVERED, delivered)

    def close(self) -> None:
        """Gives back the connections to the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _create(self) -> "_Study":
        """A new study in the database."""
        try:
            with without_info():
                optuna.create_study(
                    study_name=self._spec.name, storage=self._storage, direction=self._spec.objective.direction
                )
        except optuna.exceptions.DuplicatedStudyError:
            raise AlreadyExistsError(
                f"The database already holds an Optuna study named {self._spec.name}: choose another name."
            ) from None
        study = self._load()
        assert study is not None
        name_value(study, self._spec.objective.metric)
        self._study = study
        return study

    def _load(self) -> "_Study | None":
        """The study in the database; None when there is none."""
        sampler = self._sampler(0)
        try:
            return _Study(self._spec.name, self._storage, sampler, self._pruner)
        except KeyError:
            return None

    def _sampler(self, arm: int) -> optuna.samplers.BaseSampler:
        factory = _factory(self._spec, arm)
        return factory.sampler(self._options.sampler, self._options.sampler_options, "tuner.sampler")

    def _ask(self, study: "_Study", number: int, prices: Prices) -> Arm:
        if number in self._open:  # it was proposed, but what it was for was never committed
            study.tell(self._open.pop(number).trial, state=TrialState.FAIL)
        study.sampler = self._sampler(number)
        lost = self._lost(study, number)
        if lost:
            trial = self._add(study, number, lost.params, lost)
        elif number < len(self._enqueued):
            trial = self._add(study, number, self._enqueued[number])
        else:
            trial = study.ask()
        try:
            trial.set_user_attr(_ARM, number)
            arm = Arm(number, suggest_point(trial, self._spec.space))
        except DATABASE_ERRORS:
            raise
        except Exception as error:
            study.tell(trial, state=TrialState.FAIL)
            raise InternalError(
                f"Optuna's {self._options.sampler} could not propose trial {number} ({error}): take another sampler."
            ) from error
        self._open[number] = _OpenArm(trial)
        round_s = prices.round_s(arm.hyperparameters)
        if round_s is not None:
            trial.set_user_attr(_PREDICTED, round_s * self._spec.budget.rounds_per_trial)
        return arm

    def _exhausted(self, study: "_Study") -> bool:
        if study.stopped:
            return True
        if isinstance(study.sampler, optuna.samplers.GridSampler):
            # Asked for more, it would train points a second time while the last ones are still open.
            grid = self._options.sampler_options["search_space"].values()
            arms = {trial.user_attrs.get(_ARM) for trial in self._trials(study)} - {None}
            return len(arms) >= math.prod(len(values) for values in grid)
        return False

    def _decide(self, study: "_Study", arm: _OpenArm, observation: Observation) -> Decision:
        """Tells the study of a round, once, and of the arm's end."""
        if observation.failed:
            self._tell_failed(study, arm.trial, observation.failed)
            return Decision.FAIL
        value, round = observation.value, observation.round
        if value is not None and math.isfinite(value) and round not in arm.reported:
            arm.trial.report(value, step=round)
            arm.reported[round] = value
        elif not observation.last:
            return Decision.CONTINUE
        if observation.last:
            self._complete(study, arm)
            return Decision.FINISH
        if arm.trial.should_prune():
            study.tell(arm.trial, state=TrialState.PRUNED)
            return Decision.PRUNE
        return Decision.CONTINUE

    def _complete(self, study: "_Study", arm: _OpenArm) -> None:
        """Tells the last value there is; without any, the trial says nothing about its point."""
        if arm.reported:
            study.tell(arm.trial, arm.reported[max(arm.reported)])
        else:
            study.tell(arm.trial, state=TrialState.FAIL)

    def _tell_failed(self, study: "_Study", trial: optuna.Trial, why: str) -> None:
        trial.set_user_attr(_FAILED, why)
        worst = self._worst(study) if self._blind_to_pruned() else None
        if worst is not None:
            study.tell(trial, worst)
            return
        trial.set_constraint(_FAILED, 1.0)
        study.tell(trial, state=TrialState.PRUNED)

    def _blind_to_pruned(self) -> bool:
        *_, innermost = _names(self._options.sampler, self._options.sampler_options)
        return innermost in _BLIND_TO_PRUNED

    def _worst(self, study: "_Study") -> float | None:
        values = [value for trial in self._trials(study) for value in trial.intermediate_values.values()]
        if not values:
            return None
        return max(values) if self._spec.objective.direction == "minimize" else min(values)

    def _decided(self, study: "_Study", observation: Observation) -> Decision:
        """What was decided of an arm that is not open: a round that was observed before a crash, and not committed."""
        found = [trial for trial in self._trials(study) if trial.user_attrs.get(_ARM) == observation.number]
        if not found:
            raise self._unknown(observation.number)
        trial = found[-1]
        if observation.failed or _FAILED in trial.user_attrs:
            return Decision.FAIL
        if not observation.last and observation.round < max(trial.intermediate_values, default=0):
            return Decision.CONTINUE
        return Decision.PRUNE if trial.state == TrialState.PRUNED else Decision.FINISH

    def _unknown(self, number: int) -> InternalError:
        return InternalError(f"The tuner was told of trial {number}, which it never proposed.")

    def _attach(self, study: "_Study", frozen: FrozenTrial) -> optuna.Trial:
        return optuna.Trial(study, frozen._trial_id)

    def _lost(self, study: "_Study", number: int) -> FrozenTrial | None:
        """The trial that a crash lost when this arm was proposed before: its point is proposed again.

        A sampler that tries every point once, or walks a sequence, would count it as tried.
        """
        found = [trial for trial in self._trials(study) if trial.user_attrs.get(_ARM) == number]
        lost = [trial for trial in found if trial.state == TrialState.FAIL and not trial.intermediate_values]
        return lost[-1] if lost and self._spec.space.contains(suggested(self._spec.space, lost[-1].params)) else None

    def _add(
        self, study: "_Study", number: int, values: Hyperparameters, like: FrozenTrial | None = None
    ) -> optuna.Trial:
        """A RUNNING trial at that point, with what the sampler had noted of the one it is like."""
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=dict(values),
                distributions=distributions_of(self._spec.space, values),
                user_attrs={_ARM: number},
                system_attrs=dict(like.system_attrs) if like else None,
            )
        )
        return self._attach(study, self._trials(study)[-1])

    def _trials(self, study: "_Study") -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False)


class _Study(optuna.Study):
    """A study that is asked and told: an exhausted sampler's `stop` is remembered, where Optuna's own raises."""

    def __init__(
        self, name: str, storage: RDBStorage, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner
    ) -> None:
        super().__init__(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        self.stopped = False

    def stop(self) -> None:
        """Called by a sampler that has tried everything."""
        self.stopped = True


def _names(sampler: str, options: Mapping[str, Any]) -> list[str]:
    """A sampler's name, and those of the samplers that it wraps."""
    names = [sampler]
    while names[-1] == "PartialFixedSampler" and isinstance(options.get("base_sampler"), Mapping):
        options = options["base_sampler"]
        names.append(str(options.get("name")))
    return names


def _factory(spec: StudySpec, arm: int) -> PartFactory:
    startup = min(10, max(3, spec.budget.trials // 4))
    return PartFactory(Seeds(spec.seed, arm), startup, spec.budget.rounds_per_trial)
