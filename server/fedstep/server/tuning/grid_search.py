"""Grid search: every point of the space's grid, once."""

from pydantic import BaseModel, ConfigDict, Field

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Observation, ProposeContext, Tuner
from fedstep.server.tuning.verdict import unpruned


class GridOptions(BaseModel):
    """What a study file may say of the grid.

    Attributes:
        points: Levels that a range is cut into, on its own scale. Choices and ranges with a step keep all values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: int = Field(default=3, strict=True, ge=1, le=1000)


class GridTuner(Tuner):
    """Trains every point of the grid, the first parameter of the space varying slowest; prunes nothing.

    An arm's number is its point's index, so there is no state to keep: a number lost in a crash and given again is
    the same point.
    """

    def __init__(self, spec: StudySpec, options: GridOptions) -> None:
        """Counts the grid.

        Raises:
            InvalidInputError: The space has no grid: a range with too many steps, or conditions without number.
        """
        self._grid = spec.space.grid(options.points)

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return self._grid.size

    def propose(self, context: ProposeContext) -> list[Arm]:
        """The next points; an empty list after the last."""
        last = min(context.next_number + context.slots, self._grid.size)
        return [Arm(number, self._grid.point(number)) for number in range(context.next_number, last)]

    def observe(self, observation: Observation) -> Decision:
        """Lets every arm train to its end."""
        return unpruned(observation)
