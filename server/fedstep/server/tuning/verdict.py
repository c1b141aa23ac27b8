"""What becomes of an arm where nothing is pruned."""

from fedstep.server.tuning.base import Decision, Observation


def unpruned(observation: Observation) -> Decision:
    """FAIL for an arm that cannot go on, FINISH after its last round, else CONTINUE."""
    if observation.failed:
        return Decision.FAIL
    return Decision.FINISH if observation.last else Decision.CONTINUE
