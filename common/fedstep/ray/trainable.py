"""A federated training as Ray Tune's class `Trainable`, whose save and load are fork and restore."""

import json
import time
from pathlib import Path
from typing import Any

from fedstep.api import Fedstep
from fedstep.api.runs import Run, Runs, RunState
from fedstep.common.errors import InvalidInputError
from fedstep.common.security import PLAIN, Security
from fedstep.ray.points import point_of
from ray.tune import PlacementGroupFactory, Trainable

CHECKPOINT = "fedstep_run.json"
WORST = 1e30
"""The objective of a step that failed, with the sign that is worse: Ray's schedulers compare numbers."""

_LOOK_EVERY_S = 0.5


class FederatedRun(Trainable):
    """One trial of Ray's is one run of a study whose tuner is `outside`.

    A trial's config holds hyper-parameters of the study's space. An iteration is a step of the run; it reports the
    evaluation's metrics, `rounds_behind`, `arm`, `model_sha256` and, where training broke off, `failed`. A
    checkpoint is a file of a few bytes that names a run and its step: the models stay with the coordinator. An actor
    that ends leaves its run as it is, for the trial's next one. Given to Ray as
    `tune.with_parameters(FederatedRun, address="HOST:PORT", study="NAME")`.
    """

    _stands: Run | None

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """It waits for clients elsewhere, and needs next to nothing here."""
        return PlacementGroupFactory([{"CPU": 0.01}])

    def setup(
        self, config: dict[str, Any], address: str = "", study: str = "", rounds: int = 1, security: Security = PLAIN
    ) -> None:
        """Opens the trial's run, or finds it.

        Args:
            config: The trial's hyper-parameters.
            address: The coordinator's, `HOST:PORT`.
            study: The study, created before.
            rounds: Of one iteration.
            security: How the coordinator is known, and what is shown to it.

        Raises:
            InvalidInputError: Address or study is missing.
        """
        if not address or not study:
            raise InvalidInputError(
                'Give FederatedRun its study: tune.with_parameters(FederatedRun, address="HOST:PORT", study="NAME").'
            )
        self._study, self._rounds = study, rounds
        self._runs = Runs(address, study, security)
        with Fedstep(address, security) as fedstep:
            self._spec = fedstep.study(study).spec
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with other hyper-parameters, or as another trial; a checkpoint may be loaded after it."""
        self._begin()
        return True

    def step(self) -> dict[str, Any]:
        """Trains the run for one step."""
        if self._stands is None:
            self._stands = self._at_its_start()
        point = point_of(self._spec.space, self.config)
        result = self._runs.step(self._run, point, self._rounds, self._stands.next_step)
        self._stands = self._runs.get(self._run)
        metrics = dict(result.metrics)
        if result.failed:
            worst = WORST if self._spec.objective.direction == "minimize" else -WORST
            metrics[self._spec.objective.metric] = worst
        return metrics | {
            "rounds_behind": result.rounds_behind,
            "arm": result.trial,
            "model_sha256": result.model_sha256.hex(),
            "failed": result.failed,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes which step of which run it is."""
        if self._stands is None:
            self._stands = self._at_its_start()
        names = {"study": self._study, "run": self._run, "step": self._stands.step}
        (Path(checkpoint_dir) / CHECKPOINT).write_text(json.dumps(names), encoding="utf-8")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Puts the run where that step left its run, which may be another trial's.

        Raises:
            InvalidInputError: It names another study's run.
        """
        names = json.loads((Path(checkpoint) / CHECKPOINT).read_text(encoding="utf-8"))
        if names["study"] != self._study:
            raise InvalidInputError(
                f"The checkpoint is of study {names['study']}, and this trial trains in {self._study}: "
                "give the one it was made in."
            )
        self._settled()
        source = "" if names["run"] == self._run else names["run"]
        self._stands = self._runs.restore(self._run, names["step"], source)

    def cleanup(self) -> None:
        """Disconnects; the run stays, for the trial's next actor or another trial."""
        self._runs.disconnect()

    def _begin(self) -> None:
        """Takes up the trial's run. Where it stands is settled by what comes next: a checkpoint, or the first step."""
        name = self.trial_id if self.trial_id != "default" else ""
        self._run = self._runs.open(name).name
        self._stands = None

    def _at_its_start(self) -> Run:
        """The run where it began: a trial without a checkpoint starts anew, also after its first actor has died."""
        run = self._settled()
        if run.step == 0:
            return run
        if 0 in run.kept_steps:
            return self._runs.restore(self._run, 0)
        self._run = self._runs.open().name
        return self._runs.get(self._run)

    def _settled(self) -> Run:
        """The run once no step of it is under way: an actor may have died in the middle of one."""
        while (run := self._runs.get(self._run)).state is RunState.STEPPING:
            time.sleep(_LOOK_EVERY_S)
        return run
