"""The step-wise search in Optuna's tables, for optuna-dashboard and one's own code.

One study holds all arms, one sub-study each generation.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.optuna_space import distributions_of
from fedstep.server.tuning.optuna_storage import (
    DELIVERED,
    explained,
    is_in_memory,
    name_value,
    open_storage,
    without_info,
)
from fedstep.server.tuning.program import Result
from fedstep.server.tuning.proposers import Attempt, prior

_Direction = Literal["minimize", "maximize"]


class SubStudies:
    """Writes `NAME`, whose trials are the arms, and sub-studies: `NAME/probe`, `NAME/g0` for the screen, `NAME/g1` and
    so on for the forks.

    An arm's intermediate values are the objective by the rounds behind its model, those of the arms that it goes on
    from included: side by side they are the tree of forks. Every study says in a user attribute `about` what it is.

    Nothing is read back: what is decided depends on the tuner's own journal alone. What was written before a crash is
    found again and left as it is.

    Args:
        spec: The study.
        url: SQLAlchemy's URL of the coordinator's database; "", or one in memory, to write nothing.

    Raises:
        StorageError: The database cannot be used; so do all methods.
    """

    def __init__(self, spec: StudySpec, url: str) -> None:
        self._spec = spec
        self._study = spec.name
        self._space = spec.space
        self._url = url
        self._storage: RDBStorage | None = open_storage(url) if url and not is_in_memory(url) else None
        self._curves: dict[int, dict[int, float]] = {}
        self._behind: dict[int, int] = {}
        self._all: optuna.Study | None = None
        self._written: set[int] = set()

    def arms(self, results: Sequence[Result]) -> None:
        """Writes arms that have ended: each a trial of the study itself, of the arm's number."""
        trials = {result.arm.number: self._arm(result) for result in sorted(results, key=lambda one: one.arm.number)}
        about = (
            "All arms of the step-wise study. Intermediate values: the objective by rounds behind the model, from the "
            "first round on. `phase` says what an arm is for, `parents` the arms it goes on from."
        )
        if self._storage is None:
            return
        with explained(self._url), without_info():
            if self._all is None:
                objective = self._spec.objective
                self._all = self._study_of(self._study, objective.direction, objective.metric, about)
                self._written = {trial.user_attrs["arm"] for trial in self._all.get_trials(deepcopy=False)}
            self._all.add_trials([trial for number, trial in trials.items() if number not in self._written])
        self._written |= trials.keys()

    def _arm(self, result: Result) -> FrozenTrial:
        arm = result.arm
        first = self._behind.get(arm.parents[0], 0) if arm.parents else 0
        trained = 0 if arm.discard else arm.rounds or 0
        self._behind[arm.number] = behind = first + trained
        curve = self._curves[arm.number] = dict(self._curves.get(arm.parents[0], {})) if arm.parents else {}
        value = result.value if result.value is not None and math.isfinite(result.value) else None
        if value is not None:
            curve[behind] = value
        attributes: dict[str, Any] = {"arm": arm.number, "phase": arm.phase or "arm", "parents": list(arm.parents)}
        attributes["rounds"] = f"{first + 1} to {behind}" if trained else f"none, at {behind}"
        attributes |= {"metrics": dict(result.metrics)} if result.metrics else {}
        attributes |= {"failed": result.failed} if result.failed else {}
        failed = TrialState.FAIL if result.failed else TrialState.PRUNED  # not measured: there is no value to complete
        trial = create_trial(
            state=failed if value is None or result.failed else TrialState.COMPLETE,
            value=None if result.failed else value,
            params=dict(arm.hyperparameters),
            distributions=_holding(distributions_of(self._space, arm.hyperparameters), arm.hyperparameters),
            user_attrs=attributes,
            intermediate_values=dict(curve),
        )
        assert trial.datetime_complete is not None  # Optuna's own clock has just said when
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=result.cost.seconds)
        return trial

    def members(
        self,
        part: str,
        members: Sequence[tuple[Hyperparameters, Sequence[float | None], bool]],
        **attributes: Any,
    ) -> None:
        """Writes configurations of the study's space that were compared.

        Args:
            part: The sub-study: "probe", "g0".
            members: Each one's point, its losses by rung, and whether it was dropped. One without a last loss failed.
            attributes: For all of them.
        """
        trials = [self._member(point, values, dropped, attributes) for point, values, dropped in members]
        about = f"The {attributes.get('phase', part)}: configurations compared by their losses; pruned: dropped."
        self._write(part, "minimize", "loss", trials, about)

    def fork(
        self,
        attempt: Attempt,
        priors: Sequence[Attempt],
        distributions: Mapping[str, BaseDistribution],
        **attributes: Any,
    ) -> None:
        """Writes a generation's challenger after the earlier ones, which are its priors.

        Args:
            attempt: The challenger.
            priors: Oldest first.
            distributions: Of displacements.
            attributes: Where it stands in the tree of forks.
        """
        trials = [prior(earlier, distributions, prior=True) for earlier in priors]
        trials.append(prior(attempt, distributions, prior=False, **attributes))
        about = (
            f"Generation {attempt.generation}: the last trial is its challenger, those before it (`prior`) are the "
            "earlier ones. Parameters are displacements from the incumbent, the value is the relative improvement."
        )
        self._write(f"g{attempt.generation}", "maximize", "relative improvement", trials, about)

    def concluded(self, delivered: str) -> None:
        """Notes at the study of all arms which of them the model is of."""
        if self._all is not None:
            with explained(self._url), without_info():
                self._all.set_user_attr(DELIVERED, delivered)

    def close(self) -> None:
        """Gives back the connections to the database."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()

    def _member(
        self, point: Hyperparameters, values: Sequence[float | None], dropped: bool, attributes: Mapping[str, Any]
    ) -> FrozenTrial:
        value = values[-1] if values else None
        state = TrialState.FAIL if value is None else TrialState.PRUNED if dropped else TrialState.COMPLETE
        return create_trial(
            state=state,
            value=value if state is TrialState.COMPLETE else None,
            params=dict(point),
            distributions=distributions_of(self._space, point),
            user_attrs=dict(attributes),
            intermediate_values={rung: value for rung, value in enumerate(values) if value is not None},
        )

    def _write(self, part: str, direction: _Direction, value: str, trials: Sequence[FrozenTrial], about: str) -> None:
        if self._storage is None:
            return
        with explained(self._url), without_info():
            study = self._study_of(f"{self._study}/{part}", direction, value, about)
            written = len(study.get_trials(deepcopy=False))
            study.add_trials(trials[written:])

    def _study_of(self, name: str, direction: _Direction, value: str, about: str) -> optuna.Study:
        study = optuna.create_study(study_name=name, storage=self._storage, direction=direction, load_if_exists=True)
        if "about" not in study.user_attrs:
            study.set_user_attr("about", about)
            name_value(study, value)
        return study


def _holding(distributions: dict[str, BaseDistribution], point: Hyperparameters) -> dict[str, BaseDistribution]:
    """The distributions, widened to hold a point: a learning rate that settles may fall below its range."""
    widened = dict(distributions)
    for name, distribution in distributions.items():
        value = point[name]
        if isinstance(distribution, FloatDistribution) and not distribution.low <= float(value) <= distribution.high:
            low, high = min(distribution.low, float(value)), max(distribution.high, float(value))
            widened[name] = FloatDistribution(low, high, log=distribution.log)
    return widened
