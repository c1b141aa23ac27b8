"""Ray Tune as a tuner: its searchers choose configurations and its schedulers stop trials, inside the coordinator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedstep.common.errors import InternalError
from fedstep.common.hyperparameters import describe
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Note, Observation, ProposeContext, Tuner
from fedstep.server.tuning.ray_options import RayOptions
from fedstep.server.tuning.ray_trials import RayTrial
from fedstep.server.tuning.ray_world import Stretch
from fedstep.server.tuning.spending import rounds_in_all

_STARTED, _NOTHING = "started", "nothing"


@dataclass(frozen=True)
class _Proposed:
    """An arm, and the trial of Ray's that it is a stretch of."""

    arm: Arm
    trial: RayTrial


class RayTuner(Tuner):
    """Every arm is a whole trial; the scheduler lets it go on or stops it.

    The tuner's state is its journal: that an arm was asked for, and what each round gave. After a restart both of Ray's
    parts are made anew and are asked and told the same again. They could be pickled instead; but what is unpickled from
    a database runs, and a pickle of one version of Ray is nothing to another.

    Args:
        spec: The study.
        options: Of its tuner.

    Raises:
        MistakesError: Ray or a package is not installed, or a part cannot be made.
    """

    def __init__(self, spec: StudySpec, options: RayOptions) -> None:
        self.spec = spec
        self._world = options.world(spec)
        self._journal: list[Any] = []
        self._arms: dict[int, _Proposed] = {}
        self._decisions: dict[tuple[int, int], Decision] = {}
        self._ended: set[int] = set()
        self._waits = False

    def propose(self, context: ProposeContext) -> list[Arm]:
        """One arm a slot, as long as the searcher has points and the scheduler wants them.

        Raises:
            InternalError: The searcher fails.
        """
        arms: list[Arm] = []
        for number in range(context.next_number, context.next_number + context.slots):
            proposed = self._arms.get(number) or self._begin(number)
            if proposed is None:
                break
            arms.append(proposed.arm)
        return arms

    def observe(self, observation: Observation) -> Decision:
        """Tells both parts of a round, once.

        Raises:
            InternalError: The arm was never proposed.
        """
        number, round = observation.number, observation.round
        if number not in self._arms:
            raise InternalError(f"The tuner was told of trial {number}, which it never proposed.")
        if observation.failed:
            if number not in self._ended:
                self._take(number, round, None, observation.last, failed=True)
            return Decision.FAIL
        if (number, round) not in self._decisions and number not in self._ended:
            value = observation.value
            finite = value if value is not None and math.isfinite(value) else None
            return self._take(number, round, finite, observation.last)
        return self._decisions[number, round]

    def state(self) -> dict[str, Any]:
        """The journal, and which models are kept."""
        return {"keeps": sorted(self.keeps()), "journal": list(self._journal)}

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Asks and tells Ray's parts again what they were asked and told."""
        for entry in state.get("journal", ()):
            if entry in (_STARTED, _NOTHING):
                self._begin(len(self._arms))
            else:
                number, round, value, last, failed = entry
                self._take(number, round, value, bool(last), bool(failed))
        self.notes()  # they were told before

    def arm_of(self, number: int, stretch: Stretch) -> Arm:
        """The arm that is to train a stretch of a trial."""
        return Arm(number, stretch.point)

    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        return False

    def heard(self, number: int, trial: RayTrial, value: float | None) -> None:
        """A round of an arm has been taken in."""

    def _begin(self, number: int) -> _Proposed | None:
        """Asks for an arm. After an answer that there is none, only an observation may bring one."""
        if self._waits or self.over():
            return None
        stretch = self._world.start(number)
        self._journal.append(_NOTHING if stretch is None else _STARTED)
        if stretch is None:
            self._waits = True
            return None
        proposed = self._arms[number] = _Proposed(self.arm_of(number, stretch), stretch.trial)
        return proposed

    def _take(self, number: int, round: int, value: float | None, last: bool, failed: bool = False) -> Decision:
        self._journal.append([number, round, value, int(last), int(failed)])
        trial = self._arms[number].trial
        decision = Decision.FAIL
        if failed:
            self._world.failed(trial)
        else:
            decision = self._world.heard(trial, value, last)
        self._waits = False
        self._decisions[number, round] = decision
        if decision is not Decision.CONTINUE:
            self._ended.add(number)
        self.heard(number, trial, value)
        return decision


class RayStretchesTuner(RayTuner):
    """The trials of a scheduler that has them wait, or take over one another's models: an arm is a stretch of one.

    A trial that is paused, saved or overwritten ends its arm, and goes on in another one, from the model of the arm
    that it was saved in: its own, or a better trial's. Nothing is copied: an arm names its parent.
    """

    per_trial = False

    def __init__(self, spec: StudySpec, options: RayOptions) -> None:
        super().__init__(spec, options)
        self._limit = rounds_in_all(spec)
        self._trained = 0
        self._notes: list[Note] = []
        self._values: dict[int, float] = {}
        self._best: int | None = None

    def arm_of(self, number: int, stretch: Stretch) -> Arm:
        """See `RayTuner.arm_of`."""
        parent, trial = stretch.parent, stretch.trial.trial_id
        before = self._arms.get(parent) if parent is not None else None
        if before is not None and before.trial is not stretch.trial:
            self._notes.append(
                Note(
                    "exploitation",
                    f"Member {trial} goes on from member {before.trial.trial_id}'s model with "
                    f"{describe(stretch.point)}.",
                    {"member": int(trial), "source": int(before.trial.trial_id), "arms": [number, before.arm.number]},
                )
            )
        parents = () if parent is None else (parent,)
        return Arm(number, stretch.point, parents=parents, rounds=stretch.rounds, phase=f"member {trial}")

    def over(self) -> bool:
        """The budget's rounds have been trained: trials without an end of their own are begun until then."""
        return self._trained >= self._limit

    def heard(self, number: int, trial: RayTrial, value: float | None) -> None:
        """Looks whether the arm, once it has ended, is the best so far."""
        self._trained += 1
        if value is not None:
            self._values[number] = value
        if number not in self._ended or number not in self._values:
            return
        best = None if self._best is None else self._values[self._best]
        if best is None or self.spec.objective.better(self._values[number], best):
            self._best = number

    def keeps(self) -> set[int]:
        """The models that trials go on from, and the best one."""
        return self._world.needed() | (set() if self._best is None else {self._best})

    def delivers(self) -> int | None:
        """The arm of the best last value."""
        return self._best

    def notes(self) -> list[Note]:
        """See `Tuner.notes`."""
        notes, self._notes = self._notes, []
        return notes
