"""The contract of a tuner: who decides what is trained next."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fedstep.common.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class Arm:
    """Hyper-parameters to train with, under a number of their own.

    Attributes:
        number: The trial's number, from 0, never given twice in a study.
        hyperparameters: A point of the study's space; fixed values are not in it.
    """

    number: int
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class ProposeContext:
    """What a tuner may know when it proposes.

    Attributes:
        slots: Arms that could start now; at least 1.
        next_number: The number of the first new arm; the following ones count up from it.
        open_arms: Arms proposed earlier and not finished.
    """

    slots: int
    next_number: int
    open_arms: Sequence[int] = ()


@dataclass(frozen=True)
class Observation:
    """What one round of one arm gave.

    Attributes:
        number: The arm.
        round: From 0, inside the arm.
        value: The study's objective after the round; None when the round gave none.
        metrics: Every metric of the evaluation.
        last: The arm has no round left: it is complete after this one.
        failed: The arm cannot go on (its training diverged, its rounds failed), in one sentence; "" when it can.
    """

    number: int
    round: int
    value: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    last: bool = False
    failed: str = ""


class Decision(StrEnum):
    """What becomes of an arm after a round."""

    CONTINUE = "continue"
    PRUNE = "prune"
    FINISH = "finish"
    FAIL = "fail"


class Tuner(ABC):
    """Proposes arms and decides, round by round, what becomes of them.

    What an implementation promises:

    - It is called from one thread at a time and may block (it runs on the storage executor, never on the event loop).
    - Same seed, same observations in the same order: same arms.
    - `propose` returns at most `context.slots` arms, numbered upwards from `context.next_number`; an empty list while
      arms are open means "ask again after the next observation", and with none open "there is nothing left to try".
    - `observe` answers CONTINUE, PRUNE, FINISH or FAIL. An observation with `failed` set is answered FAIL, one with
      `last` set and a value is answered FINISH or PRUNE. Observing the same (arm, round) twice changes nothing
      after the first time: a round that was observed but not committed is trained again after a crash.
    - `state` is small and made of JSON types; `restore(state(), open arms)` on a fresh tuner of the same study goes
      on where the first one was. Arms that were proposed but are in neither the finished nor the open ones were lost
      in a crash: the tuner forgets them.
    """

    @abstractmethod
    def propose(self, context: ProposeContext) -> list[Arm]:
        """New arms to train, best first."""

    @abstractmethod
    def observe(self, observation: Observation) -> Decision:
        """Takes in a round and says what becomes of the arm."""

    def state(self) -> dict[str, Any]:
        """What `restore` needs; committed together with every round."""
        return {}

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Goes on after a restart.

        Args:
            state: What `state` gave at the last commit.
            open_arms: The arms that will be trained on.
        """
        return

    def close(self) -> None:
        """Gives back what the tuner holds, such as database connections."""
        return
