"""Ray Tune's trials without Ray's controller: what its schedulers need of both, and no more.

`ray.tune.schedulers` hands a controller and a trial to each of its methods. What they read and call of the two is
written out here, from Ray 2.60; a trial's model is named by the arm that trained it (`Saved`).
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fedstep.server.tuning.ray_parts import ROUNDS, Scheduler, Searcher

PENDING, RUNNING, PAUSED, TERMINATED, ERROR = "PENDING", "RUNNING", "PAUSED", "TERMINATED", "ERROR"


@dataclass(frozen=True)
class Saved:
    """A checkpoint: the last model of an arm.

    Attributes:
        arm: Its number.
        rounds: Behind the model.
    """

    arm: int
    rounds: int


class RayTrial:
    """What a scheduler sees of a trial.

    Attributes:
        trial_id: Its number as a text.
        config: Its configuration, in Ray's terms.
        status: As Ray calls it.
        rounds: Behind its model.
        arm: The arm that trains it, or did last; -1 before the first.
        saved: Its last own checkpoint.
        last_result: What it told last; empty before the first.
    """

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        self.trial_id = str(number)
        self.config = config
        self.status = PENDING
        self.rounds = 0
        self.arm = -1
        self.saved: Saved | None = None
        self.last_result: dict[str, Any] = {}
        self.experiment_tag = self.trial_id
        self.evaluated_params: dict[str, Any] = {}
        self.is_saving = False
        manager = SimpleNamespace(
            checkpoint_config=SimpleNamespace(num_to_keep=None),
            _latest_checkpoint_result=SimpleNamespace(checkpoint=None),
        )
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    def __str__(self) -> str:
        return self.trial_id

    @property
    def checkpoint(self) -> Saved | None:
        """What it goes on from: its own last model, or one that it took over."""
        found: Saved | None = self.run_metadata.checkpoint_manager._latest_checkpoint_result.checkpoint
        return found

    def is_finished(self) -> bool:
        """Whether it will not go on."""
        return self.status in (TERMINATED, ERROR)

    def set_config(self, config: dict[str, Any]) -> None:
        """Another configuration from its next round on."""
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        """Its name for people."""
        self.experiment_tag = tag

    def save(self) -> Saved:
        """Keeps its present model, from which it goes on."""
        self.saved = Saved(self.arm, self.rounds)
        self.run_metadata.checkpoint_manager._latest_checkpoint_result = SimpleNamespace(checkpoint=self.saved)
        return self.saved


@dataclass
class RayController:
    """What a scheduler sees of Ray's controller.

    Attributes:
        scheduler: The one it serves.
        searcher: Hears of every trial's end.
        trials: All, in the order in which they were added.
        search_alg: None: the schedulers that ask may not be used with a searcher that learns.
    """

    scheduler: Scheduler
    searcher: Searcher
    trials: list[RayTrial] = field(default_factory=list)
    search_alg: None = None

    def add(self, config: dict[str, Any]) -> RayTrial:
        """A new trial, which waits to be run."""
        trial = RayTrial(len(self.trials), config)
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        return trial

    def get_trials(self) -> list[RayTrial]:
        """All of them."""
        return self.trials

    def get_live_trials(self) -> list[RayTrial]:
        """Those that may go on."""
        return [trial for trial in self.trials if not trial.is_finished()]

    def pause_trial(self, trial: RayTrial, should_checkpoint: bool = True) -> None:
        """The trial waits for its next turn."""
        if should_checkpoint:
            trial.save()
        trial.status = PAUSED

    def _schedule_trial_save(self, trial: RayTrial, result: dict[str, Any] | None = None) -> Saved:
        """The scheduler wants to keep the trial's present model."""
        return trial.save()

    def stop_trial(self, trial: RayTrial) -> None:
        """The trial has come to its end; the searcher hears its last result, also of one that was waiting."""
        if trial.is_finished():
            return
        if trial.status == RUNNING and trial.last_result:
            self.scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self.scheduler.on_trial_remove(self, trial)
        trial.status = TERMINATED
        self.searcher.on_trial_complete(trial.trial_id, trial.last_result or None)

    def fail_trial(self, trial: RayTrial) -> None:
        """The trial cannot go on; what the searcher is told of it, its caller says."""
        self.scheduler.on_trial_error(self, trial)
        trial.status = ERROR

    def result_of(self, trial: RayTrial, metric: str, value: float) -> dict[str, Any]:
        """A round of the trial as its result; it is its last one from now on."""
        trial.last_result = {metric: value, ROUNDS: trial.rounds}
        return trial.last_result
