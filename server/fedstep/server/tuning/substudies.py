"""The step-wise search in Optuna's tables: one sub-study a generation, for optuna-dashboard and one's own code."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.space import Space
from fedstep.server.tuning.optuna_space import distributions_of
from fedstep.server.tuning.optuna_storage import explained, open_storage, without_info
from fedstep.server.tuning.proposers import Attempt, prior


class SubStudies:
    """Writes sub-studies: `NAME/probe`, `NAME/g0` for the screen, `NAME/g1` and so on for the forks.

    Nothing is read back: what is decided depends on the tuner's own journal alone. What was written before a crash is
    found again and left as it is.

    Args:
        study: The study's name.
        space: Its space.
        url: SQLAlchemy's URL of the coordinator's database; "" to write nothing.

    Raises:
        StorageError: The database cannot be used; so do all methods.
    """

    def __init__(self, study: str, space: Space, url: str) -> None:
        self._study = study
        self._space = space
        self._url = url
        self._storage: RDBStorage | None = open_storage(url) if url else None

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
        self._write(part, "minimize", trials)

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
        self._write(f"g{attempt.generation}", "maximize", trials)

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

    def _write(self, part: str, direction: Literal["minimize", "maximize"], trials: Sequence[FrozenTrial]) -> None:
        if self._storage is None:
            return
        with explained(self._url), without_info():
            study = optuna.create_study(
                study_name=f"{self._study}/{part}", storage=self._storage, direction=direction, load_if_exists=True
            )
            written = len(study.get_trials(deepcopy=False))
            study.add_trials(trials[written:])
