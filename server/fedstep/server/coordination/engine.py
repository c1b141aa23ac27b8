"""The one thing that trains: a run, stepped by a round."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from fedstep.common import hyperparameters as hp
from fedstep.common.clock import Clock
from fedstep.common.errors import InvalidInputError, UnavailableError
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import sha256
from fedstep.server.aggregation.base import Aggregator, ServerOptimizer
from fedstep.server.coordination import narrate
from fedstep.server.coordination.cohorts import Announce, Cohorts
from fedstep.server.coordination.executors import Executors
from fedstep.server.coordination.fleet import Fleet
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.phases import EvaluationPhase, Phase, TrainingPhase
from fedstep.server.coordination.run import Run, default_manifest, seed_of
from fedstep.server.coordination.shelf import Shelf, cut
from fedstep.server.selection.base import Selector
from fedstep.server.storage.base import AssignmentRecord, NewEvent, RoundRecord
from fedstep.v1 import fleet_pb2

ATTEMPTS = 3
"""Tries of one round before the fleet is taken to be unable to run it."""


class Work(StrEnum):
    """What a phase of a round asks of its clients."""

    TRAIN = "train"
    EVALUATE = "evaluate"


_WORK = {Work.TRAIN: fleet_pb2.WORK_TRAIN, Work.EVALUATE: fleet_pb2.WORK_EVALUATE}


@dataclass(frozen=True)
class StepOutcome:
    """What a step of a run gave.

    Attributes:
        run: The run after it; the run before it when the training failed.
        record: The round; None when the training failed.
        assignments: Everybody's part in it, all attempts.
        events: What watchers should know.
        failed: Why the run cannot go on with its hyper-parameters; "" when it can.
    """

    run: Run
    record: RoundRecord | None = None
    assignments: list[AssignmentRecord] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True)
class _Trained:
    """A training phase that is over."""

    phase: TrainingPhase
    cohort: tuple[str, ...]
    aggregator: Aggregator
    attempt: int
    quorum: int


class StoppedError(Exception):
    """There is no next round: the study was stopped while it waited for clients."""


class _FailedError(Exception):
    """The run cannot go on with its hyper-parameters."""


class RunEngine:
    """Steps the runs of one study. Several runs are stepped at once, over disjoint cohorts.

    Args:
        spec: The study.
        task: Its task.
        fleet: Who is there.
        ledger: Where work is given out.
        shelf: Where clients fetch models.
        executors: For everything that blocks.
        clock: For records.
        selector: Chooses cohorts.
        make_aggregator: Makes the aggregator of a round, for so many elements.
        server_optimizer: Makes the next model.
        announce: For what cannot wait.
    """

    def __init__(
        self,
        spec: StudySpec,
        task: Task,
        *,
        fleet: Fleet,
        ledger: Ledger,
        shelf: Shelf,
        executors: Executors,
        clock: Clock,
        selector: Selector,
        make_aggregator: Callable[[int], Aggregator],
        server_optimizer: ServerOptimizer,
        announce: Announce,
    ) -> None:
        self._spec = spec
        self._task = task
        self._fleet = fleet
        self._ledger = ledger
        self._shelf = shelf
        self._executors = executors
        self._clock = clock
        self.cohorts = Cohorts(spec, fleet, selector, clock, announce)
        self._make_aggregator = make_aggregator
        self._server_optimizer = server_optimizer
        self._announce = announce
        self._spare: list[Aggregator] = []

    async def prepare(self) -> None:
        """Learns the layout of the task's model, which clients are compared by. Before the first step."""
        self.cohorts.compare_with(await self._executors.compute.run(default_manifest, self._task))

    async def step(self, run: Run) -> StepOutcome:
        """One round: select, dispatch, collect, aggregate, evaluate. The caller observes and commits.

        Raises:
            UnavailableError: Not enough clients came, or they failed round after round for reasons of their own.
            StoppedError: The study was stopped before the round began.
        """
        started = self._clock.monotonic()
        outcome = StepOutcome(run)
        try:
            trained = await self._train(run, outcome)
            stepped = await self._aggregate(run, trained)
            record = await self._evaluate(run, stepped, trained, outcome)
        except _FailedError as failure:
            return replace(outcome, failed=str(failure))
        seconds = self._clock.monotonic() - started
        return replace(outcome, run=stepped, record=replace(record, seconds=seconds))

    async def _train(self, run: Run, outcome: StepOutcome) -> "_Trained":
        """Trains cohorts until one meets the quorum."""
        for attempt in range(1, ATTEMPTS + 1):
            trained = await self._train_once(run, attempt)
            phase = trained.phase
            outcome.assignments.extend(assignment.record() for assignment in phase.assignments)
            outcome.events.extend(narrate.client_faults(run.trial, run.rounds, phase.faults))
            if len(phase.accepted) >= trained.quorum:
                return trained
            if phase.diverged:
                raise _FailedError(narrate.divergence(phase.diverged, len(phase.assignments)))
            missed = narrate.round_missed(
                run.trial, run.rounds, attempt, len(phase.accepted), trained.quorum, phase.faults
            )
            await self._announce(missed)
        raise UnavailableError(
            f"Round {run.rounds} of trial {run.trial} missed its quorum {ATTEMPTS} times: "
            f"{narrate.reasons(phase.faults)}."
        )

    async def _train_once(self, run: Run, attempt: int) -> "_Trained":
        """Select, dispatch, collect. Updates go into the aggregator as they land."""
        if not await self.cohorts.wait(run):
            raise StoppedError("the study was stopped before the round began")
        aggregator = self._spare.pop() if self._spare else self._make_aggregator(run.manifest.elements)
        selection = self.cohorts.select(run, attempt)  # from here to `begin` nothing else runs: cohorts stay disjoint
        phase = TrainingPhase(
            self._ledger,
            selection.wanted,
            selection.deadline_s,
            aggregator=aggregator,
            compute=self._executors.compute,
            weights_norm=run.norm,
            max_update_ratio=self._spec.guard.max_update_ratio,
        )
        await self._collect(phase, self._dispatch(phase, run, Work.TRAIN, selection.cohort, attempt, phase.deadline_s))
        quorum = max(1, math.ceil(self._spec.round.quorum * selection.wanted))
        return _Trained(phase, selection.cohort, aggregator, attempt, quorum)

    async def _collect(self, phase: Phase, assignments: Sequence[OpenAssignment]) -> None:
        try:
            phase.begin(assignments)
            await phase.wait()
        finally:
            # Does something only where the study was cancelled; else nothing is open.
            phase.call_off(Status.ABANDONED, "the study was interrupted")
            self._fleet.wake()  # clients are free again

    async def _aggregate(self, run: Run, trained: "_Trained") -> Run:
        """The next model, on the shelf for clients."""

        def step() -> Run | None:
            update = trained.aggregator.finish()
            weights, state = self._server_optimizer.step(run.weights, update, run.optimizer_state, run.hyperparameters)
            return run.stepped(weights, state)

        stepped = await self._executors.compute.run(step)
        self._spare.append(trained.aggregator)
        if stepped is None:
            raise _FailedError("the aggregated model is not finite")
        payload = stepped.payload()
        digest, ready = await asyncio.gather(
            self._executors.bulk.run(sha256, payload), self._executors.compute.run(cut, payload)
        )
        self._shelf.put(ready, stepped.manifest, digest)
        return replace(stepped, model_sha256=digest)

    async def _evaluate(self, run: Run, stepped: Run, trained: "_Trained", outcome: StepOutcome) -> RoundRecord:
        """Measures the new model on the evaluation cohort, which is drawn apart from the training cohort."""
        cohort = self.cohorts.evaluators()
        phase = EvaluationPhase(self._ledger, len(cohort), self._spec.evaluation.deadline.total_seconds())
        try:
            work = self._dispatch(phase, stepped, Work.EVALUATE, cohort, trained.attempt, phase.deadline_s)
            await self._collect(phase, work)
            phase.refuse_outliers()
            outcome.events.extend(narrate.client_faults(run.trial, run.rounds, phase.faults))
            outcome.assignments.extend(assignment.record() for assignment in phase.assignments)
            train_loss = trained.phase.train_loss()
            metrics = {**phase.metrics(), "train_loss": train_loss}
            value = self._value(metrics, bool(phase.accepted))
        except BaseException:
            self._shelf.drop(stepped.model_sha256)
            raise
        return RoundRecord(
            trial=run.trial,
            round=run.rounds,
            attempts=trained.attempt,
            model_sha256=stepped.model_sha256,
            value=value,
            metrics=metrics,
            train_loss=train_loss,
            cohort=trained.cohort,
            updates=len(trained.phase.accepted),
            evaluators=tuple(assignment.member.name for assignment in phase.accepted),
            seconds=0.0,
            ended_at=self._clock.now(),
        )

    def _value(self, metrics: Mapping[str, float], answered: bool) -> float | None:
        """The objective; None when nobody could evaluate in time.

        Raises:
            InvalidInputError: The task has no such metric.
        """
        name = self._spec.objective.metric
        if name not in metrics and answered:
            raise InvalidInputError(
                f"Task {self._spec.task} has no metric {name!r}; it has {', '.join(sorted(metrics))}: "
                "name one of them in objective.metric."
            )
        value = metrics.get(name)
        if value is not None and not math.isfinite(value):
            raise _FailedError(f"the model's {name} is {value}")
        return value

    def _dispatch(
        self, phase: Phase, run: Run, kind: Work, names: tuple[str, ...], attempt: int, deadline_s: float
    ) -> list[OpenAssignment]:
        """The assignments of one phase, one a client.

        Args:
            phase: Gathers the answers.
            run: The model to start from, or to measure.
            kind: What to do.
            names: The cohort, in the order of dispatch.
            attempt: The round's attempt.
            deadline_s: How long the phase will wait.
        """
        study, number = self._spec.name, run.rounds if kind is Work.TRAIN else run.rounds - 1
        values = hp.map_to_proto(run.hyperparameters)
        assignments = []
        for member in self.cohorts.members(names):
            message = fleet_pb2.Assignment(
                ref=fleet_pb2.AssignmentRef(
                    assignment_id=f"{study}/{run.trial}/{number}/{kind.value}/{member.name}/{self._ledger.life}",
                    attempt=attempt,
                ),
                work=_WORK[kind],
                study=study,
                trial=run.trial,
                round=number,
                model_sha256=run.model_sha256,
                hyperparameters=values,
                seed=seed_of(self._spec.seed, number, member.name),
            )
            message.time_left.FromTimedelta(timedelta(seconds=deadline_s))
            assignments.append(
                OpenAssignment(
                    message=message,
                    member=member,
                    owner=phase,
                    update_bytes=run.manifest.update_bytes if kind is Work.TRAIN else 0,
                    sent_at=self._clock.monotonic(),
                    deadline_s=deadline_s,
                    guard=LossGuard(self._spec.guard),
                )
            )
        return assignments
