"""Random search: every arm a point drawn from the space."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Observation, ProposeContext, Tuner
from fedstep.server.tuning.verdict import unpruned


class RandomOptions(BaseModel):
    """Random search has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RandomTuner(Tuner):
    """Draws every arm from the space, each parameter uniformly on its own scale; prunes nothing.

    An arm depends on the study's seed and its own number alone, so there is no state to keep.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._space = spec.space
        self._seed = spec.seed

    def propose(self, context: ProposeContext) -> list[Arm]:
        """As many arms as there are slots; random search never ends by itself."""
        numbers = range(context.next_number, context.next_number + context.slots)
        return [Arm(number, self._space.sample(np.random.default_rng([self._seed, number]))) for number in numbers]

    def observe(self, observation: Observation) -> Decision:
        """Lets every arm train to its end."""
        return unpruned(observation)
