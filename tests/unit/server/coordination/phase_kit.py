"""A training phase on a virtual clock, and clients that do what a test's script says."""

import asyncio
from collections.abc import Sequence
from typing import Any

import torch

from fedstep.common.errors import FedstepError
from fedstep.common.spec import GuardPolicy
from fedstep.common.tensors import Manifest
from fedstep.server.aggregation.base import Aggregator
from fedstep.server.aggregation.mean import WeightedMean
from fedstep.server.coordination.executors import Executor
from fedstep.server.coordination.fleet import Fleet, LeasePolicy, Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.intake import Intake
from fedstep.server.coordination.ledger import Ledger, OpenAssignment
from fedstep.server.coordination.phases import TrainingPhase
from fedstep.server.coordination.plan import LocalPlan
from fedstep.simulation.inline import InlineExecutor
from fedstep.simulation.virtual_loop import VirtualClock
from fedstep.v1 import fleet_pb2 as pb

SAMPLES = 100
MANIFEST = Manifest.of({"w": torch.zeros(2)})


class Clients:
    """A fleet of clients by name, their ledger, and what they were told."""

    def __init__(self) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.fleet = Fleet(clock, LeasePolicy(), [])
        self.ledger = Ledger(self.fleet, clock)
        self.members: dict[str, Member] = {}
        self.began_s = 0.0

    async def join(self, *names: str) -> None:
        for name in names:
            hello = pb.Hello(client_name=name, task="t", model=MANIFEST.to_proto(), train_samples=SAMPLES)
            self.members[name] = await self.fleet.join(hello)

    def phase(
        self,
        wanted: int,
        deadline_s: float,
        aggregator: Aggregator | None = None,
        compute: Executor | None = None,
        **options: Any,
    ) -> TrainingPhase:
        intake = Intake(aggregator or WeightedMean(2), compute or InlineExecutor(), 100.0)
        parts: dict[str, Any] = {"intake": intake, "upload_s": lambda member, size: 0.0, **options}
        return TrainingPhase(self.ledger, wanted, deadline_s, **parts)

    def begin(self, phase: TrainingPhase, steps: int = 100, round: int = 0) -> dict[str, OpenAssignment]:
        """Asks everybody who is free for so many steps."""
        loop = asyncio.get_running_loop()
        self.began_s = loop.time()
        assignments = {
            name: OpenAssignment(
                message=pb.Assignment(
                    ref=pb.AssignmentRef(assignment_id=f"s/{round}/{name}", attempt=1),
                    work=pb.WORK_TRAIN,
                    study="s",
                    round=round,
                ),
                member=member,
                owner=phase,
                update_bytes=MANIFEST.update_bytes,
                sent_at=loop.time(),
                deadline_s=phase.time_left_s,
                weights_norm=1.0,
                guard=LossGuard(GuardPolicy()),
                plan=LocalPlan(steps, steps),
            )
            for name, member in self.members.items()
            if not member.busy
        }
        phase.begin(list(assignments.values()))
        return assignments

    def now_s(self) -> float:
        """Since the phase began."""
        return asyncio.get_running_loop().time() - self.began_s

    def told(self, name: str) -> list[pb.Directive]:
        """The directives that have gone to a client since it was last asked."""
        found = []
        outbox = self.members[name].outbox
        while not outbox.empty():
            message = outbox.get_nowait()
            if message is not None and message.WhichOneof("message") == "directive":
                found.append(message.directive)
        return found

    async def train(self, assignment: OpenAssignment, step_s: float, update: Sequence[float] = (1.0, 1.0)) -> int:
        """Trains step by step as a client does, until it has taken all or is told otherwise; answers with its steps."""
        name, taken = assignment.member.name, 0
        while taken < assignment.plan.steps:
            directives = self.told(name)
            if any(d.kind == pb.DIRECTIVE_KIND_ABANDON for d in directives):
                return taken
            if any(d.kind == pb.DIRECTIVE_KIND_STOP_AND_SEND for d in directives):
                break
            await asyncio.sleep(step_s)
            self.report(assignment, taken, step_s)
            taken += 1
        await self.push(assignment, update, taken)
        return taken

    def report(self, assignment: OpenAssignment, step: int, step_s: float, count: int = 1) -> None:
        ref = assignment.ref
        report = pb.StepReport(
            ref=ref, first_step=step, loss=[1.0] * count, samples=[1] * count, step_ms=[1000 * step_s] * count
        )
        self.ledger.report(assignment.member, report)

    async def push(self, assignment: OpenAssignment, update: Sequence[float], steps: int) -> FedstepError | None:
        """Pushes an update; answers with why it was refused."""
        summary = pb.TrainingSummary(samples=SAMPLES, steps=steps, loss=1.0)
        try:
            with self.ledger.update_for(assignment.ref, assignment.member) as found:
                await found.owner.take_update(found, torch.tensor(update), summary)
        except FedstepError as error:
            return error
        return None
