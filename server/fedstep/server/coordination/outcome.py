"""What a step of a run gives, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedstep.common.tensors import Manifest
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.run import Run
from fedstep.server.storage.base import AssignmentRecord, NewEvent, RoundRecord
from fedstep.server.tuning.base import ClientReport, Cost


class Work(StrEnum):
    """What a phase of a round asks of its clients."""

    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class StepOutcome:
    """What a step of a run gave.

    Attributes:
        run: The run after it; the run before it when the training failed, or was thrown away.
        record: The round; None when the training failed, or nothing was trained.
        assignments: Everybody's part in it, all attempts.
        events: What watchers should know.
        failed: Why the run cannot go on with its hyper-parameters; "" when it can.
        value: The objective; None when the run was not measured or nobody could.
        metrics: Of the evaluation.
        losses: The loss by client of the evaluation.
        clients: What the training cohort told.
        late: Late updates of the arm's earlier rounds that were taken in.
        waited_s: Seconds of each wait for clients to be there.
        trained: What each attempt to train cost.
        charged: The parts of it that are charged already: those of attempts that missed their quorum.
        cost: What it cost, all attempts and the measurement.
    """

    run: Run
    record: RoundRecord | None = None
    assignments: list[AssignmentRecord] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    failed: str = ""
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    clients: Sequence[ClientReport] = ()
    late: list[TakenLate] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    trained: list[Cost] = field(default_factory=list)
    charged: list[Cost] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)

    @property
    def due(self) -> Cost:
        """What of the cost is still to be charged."""
        return self.cost - sum(self.charged, Cost())


class StoppedError(Exception):
    """There is no next round: the study was stopped, or its budget was used up, while it waited for clients."""


def cost_of(run: Run, assignments: Sequence[AssignmentRecord]) -> Cost:
    """What these cost beside rounds and time: each was sent the model, and some sent an update."""
    asked = sum(assignment.work == Work.TRAIN for assignment in assignments)
    updates = sum(assignment.payload_bytes for assignment in assignments)
    return Cost(0, asked, len(assignments) * run.manifest.payload_bytes + updates, update_bytes=updates)


def sent_to(clients: int, manifest: Manifest) -> Cost:
    """What it costs to ask so many clients to train a model, before anything comes back."""
    return Cost(0, clients, clients * manifest.payload_bytes)
