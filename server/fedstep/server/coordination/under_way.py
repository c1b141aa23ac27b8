"""What clients do at this moment, for whoever looks on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from fedstep.server.coordination.ledger import OpenAssignment


class Kind(Enum):
    """What is waited for."""

    TRAIN = "train"
    MEASURE = "measure"
    BUFFER = "buffer"


@dataclass(frozen=True)
class UnderWay:
    """A phase of a round, or a buffer that is filled.

    Attributes:
        kind: What is waited for.
        trial: The arm.
        round: Its round.
        attempt: From 1.
        wanted: Answers that end it.
        taken: Of these, those that were taken.
        began_at: Monotonic seconds.
        end_s: When it ends, in seconds after that, as it stands.
        assignments: Everybody's part; of a buffer those that are open.
    """

    kind: Kind
    trial: int
    round: int
    attempt: int
    wanted: int
    taken: int
    began_at: float
    end_s: float
    assignments: Sequence[OpenAssignment]
