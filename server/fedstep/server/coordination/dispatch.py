"""What one client is sent for its part in a round."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from fedstep.common import hyperparameters as hp
from fedstep.common.clock import Clock
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.server.coordination.fleet import Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.ledger import OpenAssignment, Owner
from fedstep.server.coordination.outcome import Work
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.coordination.run import Run, resolve, seed_of
from fedstep.server.tuning.base import Arm
from fedstep.v1 import fleet_pb2
from fedstep.v1.hyperparameters_pb2 import HyperparameterValue

_NO_BUDGETS: Mapping[str, int] = MappingProxyType({})
_WORK = {Work.TRAIN: fleet_pb2.WORK_TRAIN, Work.EVALUATE: fleet_pb2.WORK_EVALUATE}


class Dispatcher:
    """Writes the assignments of one study.

    Args:
        spec: The study.
        task: Its task.
        clock: For when they are sent.
        life: Stands in every id: what an earlier life gave out is never taken for this one's.
    """

    def __init__(self, spec: StudySpec, task: Task, clock: Clock, life: str) -> None:
        self._spec = spec
        self._task = task
        self._clock = clock
        self._life = life

    def evaluations(
        self, owner: Owner, time_left_s: float, run: Run, members: list[Member], attempt: int
    ) -> list[OpenAssignment]:
        """The assignments of a cohort that measures a model.

        Args:
            owner: Gathers the answers.
            time_left_s: How long they are waited for.
            run: The model.
            members: The cohort.
            attempt: The measurement's attempt.
        """
        values = hp.map_to_proto(run.hyperparameters)
        return [
            self._open(
                self._message(run, Work.EVALUATE, member.name, attempt, values, time_left_s),
                member,
                owner,
                LocalPlan.of(member.train_samples, run.hyperparameters),
                run,
                time_left_s,
            )
            for member in members
        ]

    def trainings(
        self,
        owner: Owner,
        time_left_s: float,
        run: Run,
        arm: Arm,
        members: list[Member],
        attempt: int,
        budgets: Mapping[str, int] = _NO_BUDGETS,
        fresh: bool = False,
    ) -> list[OpenAssignment]:
        """The assignments of a cohort that trains, one a client.

        Args:
            owner: Gathers the answers.
            time_left_s: How long they are waited for.
            run: The model to start from.
            arm: How to train.
            members: The cohort, in the order of dispatch.
            attempt: The round's attempt.
            budgets: The most local steps of some of them.
            fresh: Whether each attempt has a seed of its own; else they train the same again.
        """
        dealt: list[Hyperparameters] = [resolve(self._spec, self._task, point) for point in arm.points]
        points = dealt or [run.hyperparameters]
        configurations = [hp.map_to_proto(values) for values in points]
        assignments = []
        for position, member in enumerate(members):
            place, budget = position % len(points), budgets.get(member.name, 0)
            message = self._message(run, Work.TRAIN, member.name, attempt, configurations[place], time_left_s)
            if fresh and attempt > 1:  # the same seed twice would give the same update twice
                message.seed = seed_of(self._spec.seed, run.rounds, member.name, attempt)
            message.max_steps = min(arm.max_steps or budget, budget or arm.max_steps)
            message.report_only, message.local_validation = arm.discard, arm.local_validation
            plan = LocalPlan.of(member.train_samples, points[place], arm.max_steps, budget)
            assignments.append(self._open(message, member, owner, plan, run, time_left_s))
        return assignments

    def _open(
        self,
        message: fleet_pb2.Assignment,
        member: Member,
        owner: Owner,
        plan: LocalPlan,
        run: Run,
        time_left_s: float,
    ) -> OpenAssignment:
        return OpenAssignment(
            message=message,
            member=member,
            owner=owner,
            model_bytes=run.manifest.payload_bytes,
            update_bytes=run.manifest.update_bytes if message.work == fleet_pb2.WORK_TRAIN else 0,
            sent_at=self._clock.monotonic(),
            deadline_s=time_left_s,
            guard=LossGuard(self._spec.guard),
            plan=plan,
            weights_norm=run.norm,
        )

    def _message(
        self,
        run: Run,
        kind: Work,
        client: str,
        attempt: int,
        values: dict[str, HyperparameterValue],
        time_left_s: float,
    ) -> fleet_pb2.Assignment:
        study, number = self._spec.name, run.rounds if kind is Work.TRAIN else max(0, run.rounds - 1)
        message = fleet_pb2.Assignment(
            ref=fleet_pb2.AssignmentRef(
                assignment_id=f"{study}/{run.trial}/{number}/{kind.value}/{client}/{self._life}",
                attempt=attempt,
            ),
            work=_WORK[kind],
            study=study,
            trial=run.trial,
            round=number,
            model_sha256=run.model_sha256,
            hyperparameters=values,
            seed=seed_of(self._spec.seed, number, client),
        )
        message.time_left.FromTimedelta(timedelta(seconds=time_left_s))
        return message
