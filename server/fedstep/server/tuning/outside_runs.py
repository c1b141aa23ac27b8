"""The runs that a program outside steps: where each stands, and what it may go back to. Names only, no models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedstep.common.hyperparameters import Value


@dataclass(frozen=True)
class Stand:
    """Where a run stood after a step.

    Attributes:
        step: The step's number; 0 where the run began.
        arm: The arm whose last model it is; None for the study's initial model.
        failed: The step could not be trained to its end, so the run never stood there.
    """

    step: int
    arm: int | None
    failed: bool = False


@dataclass(frozen=True)
class Asked:
    """A step that was asked for and is not done.

    Attributes:
        step: Its number.
        turn: When it was asked, among all that ever were.
        hyperparameters: A point of the study's space.
        rounds: To train.
        arm: The arm that it became; None while it has none.
    """

    step: int
    turn: int
    hyperparameters: dict[str, Value]
    rounds: int
    arm: int | None = None


@dataclass(frozen=True)
class OutsideRun:
    """One run.

    Attributes:
        name: Its name in the study.
        origin: The arm it was forked from; None where it was opened.
        stands: Where it stood, by step; only the latest ones are kept, and the one it stands on.
        step: The step it stands after.
        next_step: The number of its next step.
        asked: The step under way.
        closed: It was let go.
    """

    name: str
    origin: int | None = None
    stands: tuple[Stand, ...] = (Stand(0, None),)
    step: int = 0
    next_step: int = 1
    asked: Asked | None = None
    closed: bool = False

    @classmethod
    def from_arm(cls, name: str, arm: int | None) -> "OutsideRun":
        """A run that starts where an arm ended."""
        return cls(name, arm, (Stand(0, arm),))

    def stand(self, step: int) -> Stand | None:
        """Where it stood after that step; None where that is not kept."""
        return next((stand for stand in self.stands if stand.step == step), None)

    @property
    def arm(self) -> int | None:
        """The arm whose model it stands on; None for the study's initial model."""
        stand = self.stand(self.step)
        return stand.arm if stand is not None else None

    @property
    def kept_steps(self) -> list[int]:
        """The steps it can be restored to, or forked from."""
        return [] if self.closed else [stand.step for stand in self.stands if not stand.failed]

    def needs(self) -> set[int]:
        """The arms whose models it needs."""
        if self.closed and self.asked is None:
            return set()
        stands = [stand for stand in self.stands if not self.closed or stand.step == self.step]
        return {stand.arm for stand in stands if stand.arm is not None and not stand.failed}

    def moved(self, stand: Stand, keep: int) -> "OutsideRun":
        """The run after one more step, with the latest `keep` places it stood at."""
        step = self.step if stand.failed else stand.step
        latest = (*self.stands, stand)
        stands = (*(s for s in latest[:-keep] if s.step == step), *latest[-keep:])
        return replace(self, stands=stands, step=step, next_step=max(self.next_step, stand.step + 1), asked=None)


def to_json(runs: Mapping[str, OutsideRun]) -> dict[str, Any]:
    """The runs as JSON types, by name; what is as in a new run is left out."""
    return {name: _one_to_json(run) for name, run in runs.items()}


def from_json(stored: Mapping[str, Any]) -> dict[str, OutsideRun]:
    """The runs that `to_json` wrote."""
    return {name: _one_from_json(name, run) for name, run in stored.items()}


def _one_to_json(run: OutsideRun) -> dict[str, Any]:
    stored: dict[str, Any] = {"step": run.step, "next_step": run.next_step}
    stored["stands"] = [[stand.step, stand.arm, *([True] if stand.failed else [])] for stand in run.stands]
    if run.origin is not None:
        stored["origin"] = run.origin
    if run.closed:
        stored["closed"] = True
    if run.asked is not None:
        stored["asked"] = vars(run.asked)
    return stored


def _one_from_json(name: str, stored: Mapping[str, Any]) -> OutsideRun:
    return OutsideRun(
        name,
        stored.get("origin"),
        tuple(Stand(*stand) for stand in stored["stands"]),
        stored["step"],
        stored["next_step"],
        Asked(**stored["asked"]) if "asked" in stored else None,
        stored.get("closed", False),
    )
