"""Ray Tune's searcher and scheduler at work on a study, round by round."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fedstep.common.errors import InternalError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.tuning.base import Decision
from fedstep.server.tuning.ray_parts import METRIC, Scheduler, Searcher, seeded
from fedstep.server.tuning.ray_space import RaySpace
from fedstep.server.tuning.ray_trials import PAUSED, RUNNING, RayController, RayTrial

_ASKS = 8  # a searcher that answers with what it had answered before says nothing that time
_PAUSE, _STOP = "PAUSE", "STOP"


@dataclass(frozen=True)
class Rules:
    """How a study's trials are run.

    Attributes:
        seed: The study's.
        lower_is_better: Of the objective.
        rounds: Of a whole trial; None for trials that have no end of their own.
        stretch: The most rounds that an arm trains.
        population: So many trials are always under way; 0 for a new one whenever there is room.
    """

    seed: int
    lower_is_better: bool
    rounds: int | None
    stretch: int
    population: int = 0


@dataclass(frozen=True)
class Stretch:
    """What the next arm is to train.

    Attributes:
        trial: Ray's.
        point: Of the study's space.
        parent: The arm whose model it starts from; None for the initial one.
        rounds: The most that it trains.
    """

    trial: RayTrial
    point: Hyperparameters
    parent: int | None
    rounds: int


class RayWorld:
    """A searcher, a scheduler, and the trials between them.

    Whatever is asked of it is answered by what was asked and told before, and by nothing else: asked and told the same
    again, it stands where it stood.

    Args:
        make: Makes both parts.
        space: What configurations of Ray's stand for.
        rules: Of the study.
    """

    def __init__(self, make: Callable[[], tuple[Searcher, Scheduler]], space: RaySpace, rules: Rules) -> None:
        self._space = space
        self._rules = rules
        self._events = 0
        self._worst: float | None = None
        self._untold: list[RayTrial] = []
        self._exhausted = False
        with self._seeded():
            self._searcher, self._scheduler = make()
            self._searcher.set_search_properties(METRIC, "min" if rules.lower_is_better else "max", space.domains())
        self._controller = RayController(self._scheduler, self._searcher)
        self._hyperband: dict[str, Any] | None = getattr(self._scheduler, "_state", None)  # no other scheduler has one

    def start(self, arm: int) -> Stretch | None:
        """What an arm of that number is to train; None where there is nothing now.

        Raises:
            InternalError: The searcher fails.
        """
        with self._seeded():
            self._fill()
            trial: RayTrial | None = self._scheduler.choose_trial_to_run(self._controller)
        if trial is None:
            return None
        trial.status = RUNNING
        trial.arm = arm
        parent = trial.checkpoint
        trial.rounds = parent.rounds if parent else 0
        left = math.inf if self._rules.rounds is None else self._rules.rounds - trial.rounds
        return Stretch(
            trial,
            self._space.point(trial.config),
            parent.arm if parent else None,
            int(min(self._rules.stretch, left)),
        )

    def heard(self, trial: RayTrial, value: float | None, last: bool) -> Decision:
        """Takes in a round of a trial and says what becomes of its arm.

        Args:
            trial: That is being trained.
            value: The objective; None where the round gave none.
            last: The arm has no round left.
        """
        trial.rounds += 1
        ended = self._rules.rounds is not None and trial.rounds >= self._rules.rounds
        with self._seeded():
            if value is None:
                return self._unheard(trial, last, ended)
            self._worst = value if self._worst is None else self._worse(self._worst, value)
            self._tell_untold()
            result = self._controller.result_of(trial, METRIC, value)
            before = trial.saved
            action = _STOP if ended else self._scheduler.on_trial_result(self._controller, trial, dict(result))
            if action == _STOP:
                self._controller.stop_trial(trial)
                return Decision.FINISH if last else Decision.PRUNE
            self._searcher.on_trial_result(trial.trial_id, dict(result))
            if trial.status != PAUSED and (action == _PAUSE or last or trial.saved is not before):
                self._controller.pause_trial(trial)
            return Decision.FINISH if trial.status == PAUSED else Decision.CONTINUE

    def failed(self, trial: RayTrial) -> None:
        """A trial cannot go on. The searcher is told the worst value there is: of an error it would learn nothing."""
        with self._seeded():
            self._controller.fail_trial(trial)
            self._untold.append(trial)
            self._tell_untold()

    def needed(self) -> set[int]:
        """The arms whose models some trial may still go on from."""
        live = self._controller.get_live_trials()
        saved = [found for trial in live for found in (trial.checkpoint, trial.saved) if found is not None]
        return {found.arm for found in saved}

    def _seeded(self) -> AbstractContextManager[None]:
        self._events += 1
        return seeded(self._rules.seed, self._events)

    def _fill(self) -> None:
        """Adds the trials that the scheduler may choose from."""
        if self._rules.population:
            while len(self._controller.get_live_trials()) < self._rules.population and self._add():
                pass
        elif self._scheduler.choose_trial_to_run(self._controller) is None:
            self._open_bracket()
            while self._add() and self._bracket_has_room():
                pass

    def _add(self) -> bool:
        """Adds a trial; False where the searcher has none."""
        number = str(len(self._controller.trials))
        for _ in range(0 if self._exhausted else _ASKS):
            try:
                config = self._searcher.suggest(number)
            except Exception as error:  # of whatever library is behind it
                name = type(self._searcher).__name__
                raise InternalError(
                    f"Ray's {name} could not propose trial {number} ({error}): take another searcher."
                ) from error
            if isinstance(config, dict):
                self._controller.add(config)
                return True
            if config is not None:  # it has tried all that it would try
                self._exhausted = True
                break
        return False

    def _open_bracket(self) -> None:
        """Has Hyperband open its next bracket: it would put the trial into one that has halved its own."""
        if self._hyperband is not None:
            self._hyperband["bracket"] = None

    def _bracket_has_room(self) -> bool:
        """Whether Hyperband's bracket wants more trials before it begins: it halves those that are there."""
        return self._hyperband is not None and not self._hyperband["bracket"].filled()

    def _unheard(self, trial: RayTrial, last: bool, ended: bool) -> Decision:
        if ended and trial.last_result:
            self._controller.stop_trial(trial)
        elif ended:  # it never had a value
            self._controller.fail_trial(trial)
            self._untold.append(trial)
        elif last:
            self._controller.pause_trial(trial)
        return Decision.FINISH if last else Decision.CONTINUE

    def _worse(self, one: float, other: float) -> float:
        return max(one, other) if self._rules.lower_is_better else min(one, other)

    def _tell_untold(self) -> None:
        """Failed trials are told of as soon as there is a value that can stand for them."""
        if self._worst is None:
            return
        for trial in self._untold:
            result = self._controller.result_of(trial, METRIC, self._worst)
            self._searcher.on_trial_complete(trial.trial_id, dict(result))
        self._untold.clear()
