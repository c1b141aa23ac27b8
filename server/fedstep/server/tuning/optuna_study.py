"""Optuna as a tuner: any sampler and any pruner, the study in the coordinator's own database."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from fedstep.common.errors import AlreadyExistsError, FieldViolation, InternalError, StorageError
from fedstep.common.spec import StudySpec
from fedstep.common.validation import MistakesError
from fedstep.server.tuning.base import Arm, Decision, Observation, ProposeContext, Tuner
from fedstep.server.tuning.optuna_parts import PartFactory, Seeds
from fedstep.server.tuning.optuna_space import distributions_of, space_faults, suggest_point

_ARM = "fedstep_trial"
_FAILED = "fedstep_failed"
_BUSY_TIMEOUT_S = 30

# They learn from complete trials only: of a pruned one they would never hear.
_BLIND_TO_PRUNED = ("GPSampler", "CmaEsSampler", "NSGAIISampler", "NSGAIIISampler")


class OptunaOptions(BaseModel):
    """What a study file may say of Optuna.

    Attributes:
        sampler: The class name of a public sampler.
        sampler_options: Its keyword arguments.
        pruner: The class name of a public pruner.
        pruner_options: Its keyword arguments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampler: str = "TPESampler"
    sampler_options: dict[str, Any] = Field(default_factory=dict)
    pruner: str = "MedianPruner"
    pruner_options: dict[str, Any] = Field(default_factory=dict)

    def check(self, spec: StudySpec) -> None:
        """Makes both parts once, to see that they can be made and that the sampler can search the space.

        Raises:
            MistakesError: They cannot; the fields are relative to `tuner`.
        """
        factory = _factory(spec, 0)
        faults: list[FieldViolation] = []
        for make, name, options, field in (
            (factory.sampler, self.sampler, self.sampler_options, "tuner.sampler"),
            (factory.pruner, self.pruner, self.pruner_options, "tuner.pruner"),
        ):
            try:
                make(name, options, field)
            except MistakesError as error:
                faults += error.violations
        if not faults:
            faults += space_faults(self.sampler, self.sampler_options, spec.space, "tuner.sampler")
        if faults:
            raise MistakesError(faults)


class OptunaTuner(Tuner):
    """Asks an Optuna study for arms and tells it what became of them.

    An arm is found in the study by its number, kept as the user attribute `fedstep_trial`: Optuna counts arms that a
    crash lost, fedstep does not. Every arm has a sampler of its own, seeded by the study's seed and the arm's number;
    what samplers remember is in the database.

    An arm that failed is told so that the sampler keeps away from its neighbourhood. It is told PRUNED with a violated
    constraint, which TPE ranks behind every other trial; samplers that read complete trials only are told the worst
    value seen so far. A trial told FAIL, as Optuna would have it, teaches no sampler anything.
    """

    def __init__(self, spec: StudySpec, options: OptunaOptions, storage_url: str) -> None:
        """Opens the database and makes Optuna's tables where there are none.

        Args:
            spec: The study; its name is the name of Optuna's study.
            options: Checked ones, see `OptunaOptions.check`.
            storage_url: SQLAlchemy's URL of the coordinator's database.

        Raises:
            StorageError: The database cannot be used.
        """
        self._spec = spec
        self._options = options
        self._url = storage_url
        self._pruner = _factory(spec, 0).pruner(options.pruner, options.pruner_options, "tuner.pruner")
        self._open: dict[int, optuna.Trial] = {}
        self._study: _Study | None = None
        with self._database():
            try:
                self._storage = _open_storage(storage_url)
            except (RuntimeError, ImportError) as error:  # tables of another Optuna; no driver for such a database
                raise self._unusable(error) from error

    def propose(self, context: ProposeContext) -> list[Arm]:
        """One arm a slot; none when the sampler has tried all that there is.

        Raises:
            AlreadyExistsError: At the first call of a new study: Optuna's tables hold another of that name.
            StorageError: The database cannot be used.
        """
        with self._database():
            study = self._study or self._create()
            arms: list[Arm] = []
            for number in range(context.next_number, context.next_number + context.slots):
                if self._exhausted(study):
                    break
                arms.append(self._ask(study, number))
            return arms

    def observe(self, observation: Observation) -> Decision:
        """Reports the round to the study and asks its pruner.

        Raises:
            InternalError: The arm was never proposed.
            StorageError: The database cannot be used.
        """
        with self._database():
            study = self._study or self._create()
            trial = self._open.get(observation.number)
            if trial is None:
                return self._decided(study, observation)
            if observation.failed:
                self._tell_failed(study, trial, observation.failed)
                return self._close(observation.number, Decision.FAIL)
            return self._observe_open(study, trial, observation)

    def state(self) -> dict[str, Any]:
        """Whether the sampler has tried everything; all else is in the database."""
        return {"exhausted": self._study is not None and self._study.stopped}

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Takes up the study in the database: open arms go on, every other RUNNING trial is told FAIL.

        Raises:
            StorageError: The database cannot be used.
        """
        with self._database():
            study = self._study = self._load() or self._create()
            study.stopped = bool(state.get("exhausted", False))
            wanted = {arm.number: arm for arm in open_arms}
            latest = {trial.user_attrs[_ARM]: trial for trial in self._trials(study) if _ARM in trial.user_attrs}
            self._open = {}
            for frozen in self._trials(study):
                number = frozen.user_attrs.get(_ARM)
                if frozen.state.is_finished():
                    continue
                if number in wanted and frozen is latest[number]:
                    self._open[number] = self._attach(study, frozen)
                else:
                    study.tell(frozen.number, state=TrialState.FAIL)
            for number, arm in wanted.items():
                if number not in latest:
                    self._open[number] = self._add(study, arm)

    def close(self) -> None:
        """Gives back the connections to the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _create(self) -> "_Study":
        """A new study in the database."""
        try:
            with _without_info():
                optuna.create_study(
                    study_name=self._spec.name, storage=self._storage, direction=self._spec.objective.direction
                )
        except optuna.exceptions.DuplicatedStudyError:
            raise AlreadyExistsError(
                f"The database already holds an Optuna study named {self._spec.name}: choose another name."
            ) from None
        study = self._load()
        assert study is not None
        self._study = study
        return study

    def _load(self) -> "_Study | None":
        """The study in the database; None when there is none."""
        try:
            return _Study(self._spec.name, self._storage, self._sampler(0), self._pruner)
        except KeyError:
            return None

    def _sampler(self, arm: int) -> optuna.samplers.BaseSampler:
        factory = _factory(self._spec, arm)
        return factory.sampler(self._options.sampler, self._options.sampler_options, "tuner.sampler")

    def _ask(self, study: "_Study", number: int) -> Arm:
        study.sampler = self._sampler(number)
        trial = study.ask()
        try:
            trial.set_user_attr(_ARM, number)
            arm = Arm(number, suggest_point(trial, self._spec.space))
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
            raise
        except Exception as error:
            study.tell(trial, state=TrialState.FAIL)
            raise InternalError(
                f"Optuna's {self._options.sampler} could not propose trial {number} ({error}): take another sampler."
            ) from error
        self._open[number] = trial
        return arm

    def _exhausted(self, study: "_Study") -> bool:
        if study.stopped:
            return True
        if isinstance(study.sampler, optuna.samplers.GridSampler):
            # Asked for more, it would train points a second time while the last ones are still open.
            grid = self._options.sampler_options["search_space"].values()
            return len(self._trials(study)) >= math.prod(len(values) for values in grid)
        return False

    def _observe_open(self, study: "_Study", trial: optuna.Trial, observation: Observation) -> Decision:
        value = observation.value if observation.value is not None and math.isfinite(observation.value) else None
        reported = study.frozen(trial).intermediate_values
        if not observation.last and (value is None or observation.round in reported):
            return Decision.CONTINUE
        if value is not None and observation.round not in reported:
            trial.report(value, step=observation.round)
        if observation.last:
            self._tell_last(study, trial, reported.get(observation.round, value))
            return self._close(observation.number, Decision.FINISH)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return self._close(observation.number, Decision.PRUNE)
        return Decision.CONTINUE

    def _tell_last(self, study: "_Study", trial: optuna.Trial, value: float | None) -> None:
        """Completes a trial; one whose last round gave no value counts with its last one that did."""
        if value is None:
            reported = study.frozen(trial).intermediate_values
            value = reported[max(reported)] if reported else None
        if value is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)

    def _tell_failed(self, study: "_Study", trial: optuna.Trial, why: str) -> None:
        trial.set_user_attr(_FAILED, why)
        worst = self._worst(study) if self._blind_to_pruned() else None
        if worst is not None:
            study.tell(trial, worst)
            return
        trial.set_constraint(_FAILED, 1.0)
        study.tell(trial, state=TrialState.PRUNED)

    def _blind_to_pruned(self) -> bool:
        name, options = self._options.sampler, self._options.sampler_options
        while name == "PartialFixedSampler":
            options = options["base_sampler"]
            name = options["name"]
        return name in _BLIND_TO_PRUNED

    def _worst(self, study: "_Study") -> float | None:
        values = [value for trial in self._trials(study) for value in trial.intermediate_values.values()]
        if not values:
            return None
        return max(values) if self._spec.objective.direction == "minimize" else min(values)

    def _close(self, number: int, decision: Decision) -> Decision:
        del self._open[number]
        return decision

    def _decided(self, study: "_Study", observation: Observation) -> Decision:
        """What was decided of an arm that is not open: a round that was observed before a crash, and not committed."""
        found = [trial for trial in self._trials(study) if trial.user_attrs.get(_ARM) == observation.number]
        if not found:
            raise InternalError(f"The tuner was told of trial {observation.number}, which it never proposed.")
        trial = found[-1]
        if observation.failed or _FAILED in trial.user_attrs:
            return Decision.FAIL
        if not observation.last and observation.round < max(trial.intermediate_values, default=0):
            return Decision.CONTINUE
        return Decision.PRUNE if trial.state == TrialState.PRUNED else Decision.FINISH

    def _attach(self, study: "_Study", frozen: FrozenTrial) -> optuna.Trial:
        return optuna.Trial(study, frozen._trial_id)

    def _add(self, study: "_Study", arm: Arm) -> optuna.Trial:
        """An open arm that Optuna's tables have lost: it is added as it is, and trained on."""
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=dict(arm.hyperparameters),
                distributions=distributions_of(self._spec.space, arm.hyperparameters),
                user_attrs={_ARM: arm.number},
            )
        )
        return self._attach(study, self._trials(study)[-1])

    def _trials(self, study: "_Study") -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False)

    @contextmanager
    def _database(self) -> Iterator[None]:
        """Says what a person can do about a database that fails."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StorageError:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause).split("\n")[0].rstrip(".")
        return StorageError(
            f"Optuna cannot use the database {_shown(self._url)} ({reason}): "
            "check the URL, the rights on it and what else holds it."
        )


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

    def frozen(self, trial: optuna.Trial) -> FrozenTrial:
        """The trial as the database has it."""
        return self.get_trials(deepcopy=False)[trial.number]


def _factory(spec: StudySpec, arm: int) -> PartFactory:
    startup = min(10, max(3, spec.budget.trials // 4))
    return PartFactory(Seeds(spec.seed, arm), startup, spec.budget.rounds_per_trial)


def _open_storage(url: str) -> RDBStorage:
    sqlite = url.startswith("sqlite")
    engine: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if sqlite else {"pool_pre_ping": True}
    return RDBStorage(url, engine_kwargs=engine)


def _shown(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "given"


@contextmanager
def _without_info() -> Iterator[None]:
    """Keeps Optuna from announcing the study on standard error; nobody else's logging changes."""
    logger = logging.getLogger("optuna.storages._rdb.storage")

    def heard(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    logger.addFilter(heard)
    try:
        yield
    finally:
        logger.removeFilter(heard)
