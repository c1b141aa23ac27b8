"""The incumbent, and what the step-wise tuner's phases have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.space import Space
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.meter import Meter
from fedstep.server.tuning.paired import Evidence, compare
from fedstep.server.tuning.program import Part, ProgramTuner, Result
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.stepwise_settings import StepwiseSettings
from fedstep.server.tuning.substudies import SubStudies


@dataclass(frozen=True)
class Line:
    """A line of training: a configuration and the model that it goes on from.

    Attributes:
        point: The configuration.
        arm: The arm whose model it is; None for the study's initial model.
        rounds: Rounds that the model has behind it.
        averaged: Whether an average of the model is kept.
    """

    point: Hyperparameters
    arm: int | None = None
    rounds: int = 0
    averaged: bool = False

    @property
    def parents(self) -> tuple[int, ...]:
        """For an arm that goes on."""
        return () if self.arm is None else (self.arm,)


@dataclass(frozen=True)
class Phases:
    """What every phase works with.

    Attributes:
        tuner: Numbers arms and takes notes.
        settings: The constants.
        scales: Of the study.
        meter: The budget.
        substudies: Optuna's view of it all.
        last_points: Of every arm that ended, what its model was trained with last.
    """

    tuner: ProgramTuner
    settings: StepwiseSettings
    scales: Scales
    meter: Meter
    substudies: SubStudies
    last_points: dict[int, Hyperparameters] = field(default_factory=dict)

    def train(self, *arms: Arm) -> Part[list[Result]]:
        """Has arms trained, if possible at the same time, and counts what they cost."""
        results = yield list(arms)
        self.meter.add(results)
        self.substudies.arms(results)
        self.last_points.update({result.arm.number: result.arm.hyperparameters for result in results})
        return results

    def last_point(self, line: Line) -> Hyperparameters:
        """What the line's model was trained with last: its point, but for a learning rate that fell on the way."""
        return line.point if line.arm is None else self.last_points[line.arm]

    def measured(self, line: Line, cohort: int) -> Arm:
        """The line's model, measured on a cohort."""
        settings: dict[str, Any] = {"phase": "measure", "cohort": cohort, "average": self.settings.decay}
        return self.tuner.arm(self.last_point(line), parents=line.parents, rounds=0, every_round=False, **settings)

    def averaged(self, line: Line, cohort: int) -> Arm:
        """The average of the line's model, measured on a cohort."""
        settings: dict[str, Any] = {"phase": "average", "cohort": cohort, "of_average": True}
        return self.tuner.arm(self.last_point(line), parents=line.parents, rounds=0, **settings)

    def compared(self, end: Result, start: Result) -> Evidence:
        """The evidence for the one against the other, client by client."""
        return compare(end.losses, start.losses, self.settings.loss_clip)

    def score(self, result: Result) -> float | None:
        """Its objective, greater being better."""
        minimize = self.tuner.spec.objective.direction == "minimize"
        return None if result.value is None else -result.value if minimize else result.value

    def tell_rewind(self, line: Line, end: Result, evidence: Evidence, why: str) -> None:
        """Notes that the line goes on, and not what the arm ended with."""
        self.tuner.note(
            "rewind",
            f"Back to {'the start' if line.arm is None else f'arm {line.arm}'} from arm {end.arm.number}: {why}.",
            arms=[*line.parents, end.arm.number],
            **evidence.details(),
        )


def sobol_points(space: Space, count: int, seed: Sequence[int]) -> list[dict[str, Value]]:
    """The first points of a scrambled Sobol sequence (Owen 1998) over the space."""
    from scipy.stats import qmc  # takes a second to load, and few studies have a screen

    names = list(space.ordered)
    sequence = qmc.Sobol(len(names), scramble=True, rng=np.random.default_rng(seed))
    units = sequence.random_base2(max(0, (count - 1).bit_length()))
    return [space.from_unit(dict(zip(names, map(float, row), strict=True))) for row in units[:count]]
