"""What a study has cost beside its budget: by trial, and the coordinator's own work."""

from dataclasses import dataclass, replace
from operator import add

from fedstep.common.amounts import fieldwise


@dataclass(frozen=True)
class ArmCost:
    """What one trial has cost, its failed rounds and its measurements included.

    Attributes:
        trial: Its number.
        rounds: Rounds.
        client_rounds: Trainings that clients were asked for.
        payload_bytes: Bytes of models and updates.
        update_bytes: Of these, those of updates.
        seconds: Wall-clock time of its rounds and measurements.
    """

    trial: int
    rounds: int = 0
    client_rounds: int = 0
    payload_bytes: int = 0
    update_bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: "ArmCost") -> "ArmCost":
        return replace(fieldwise(add, self, other), trial=self.trial)


@dataclass(frozen=True)
class Overhead:
    """What the coordinator itself has spent on a study.

    Attributes:
        tuner_seconds: Wall-clock time inside the tuner, Optuna's database included.
        tuner_cpu_seconds: Of the CPU, in the same calls.
        commit_seconds: Wall-clock time of the study's commits.
        cpu_seconds: Of the CPU, by the whole process while the study was under way.
    """

    tuner_seconds: float = 0.0
    tuner_cpu_seconds: float = 0.0
    commit_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: "Overhead") -> "Overhead":
        return fieldwise(add, self, other)
