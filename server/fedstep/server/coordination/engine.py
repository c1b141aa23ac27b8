"""The one thing that trains: a run, stepped by a round."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from fedstep.common import hyperparameters as hp
from fedstep.common.clock import Clock
from fedstep.common.errors import InvalidInputError, UnavailableError
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import Manifest
from fedstep.server.aggregation.base import Aggregator, ServerOptimizer
from fedstep.server.coordination.executors import Executors
from fedstep.server.coordination.fleet import Fleet, Member, Presence
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.phases import EvaluationPhase, Phase, TrainingPhase
from fedstep.server.coordination.run import Run, default_manifest, rng_of, seed_of
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.selection.base import Candidate, Selection, SelectionContext, Selector
from fedstep.server.selection.evaluation import evaluation_cohort
from fedstep.server.storage.base import AssignmentRecord, NewEvent, RoundRecord
from fedstep.v1 import fleet_pb2

ATTEMPTS = 3
"""Tries of one round before the fleet is taken to be unable to run it."""

Announce = Callable[[NewEvent], Awaitable[None]]
"""Tells a study's watchers something that cannot wait for the round's commit."""


@dataclass(frozen=True)
class StepOutcome:
    """What a step of a run gave.

    Attributes:
        run: The run after it; the run before it when the training failed.
        record: The round; None when the training failed.
        assignments: Everybody's part in it, all attempts.
        events: What watchers should know.
        failed: Why the run cannot go on with its hyper-parameters; "" when it can.
        seconds: Wall-clock time of the step.
    """

    run: Run
    record: RoundRecord | None
    assignments: list[AssignmentRecord] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    failed: str = ""
    seconds: float = 0.0


@dataclass
class _Attempt:
    """A training phase and who was asked."""

    phase: TrainingPhase
    selection: Selection
    aggregator: Aggregator


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
        self._selector = selector
        self._make_aggregator = make_aggregator
        self._server_optimizer = server_optimizer
        self._announce = announce
        self._layout: Manifest | None = None
        self._spare: list[Aggregator] = []
        self._phases: set[Phase] = set()

    async def prepare(self) -> None:
        """Learns the layout of the task's model, which clients are compared by. Before the first step."""
        self._layout = await self._executors.compute.run(default_manifest, self._task)

    async def step(self, run: Run) -> StepOutcome:
        """One round: select, dispatch, collect, aggregate, evaluate. The caller observes and commits.

        Raises:
            UnavailableError: Not enough clients came, or they failed round after round for reasons of their own.
        """
        started = self._clock.monotonic()
        outcome = StepOutcome(run, None)
        for attempt in range(1, ATTEMPTS + 1):
            tried = await self._train(run, attempt)
            outcome.assignments.extend(a.record() for a in tried.phase.assignments)
            outcome.events.extend(_fault_events(run, tried.phase))
            if len(tried.phase.accepted) >= self._quorum(tried.selection):
                break
            self._give_back(tried.aggregator)
            if tried.phase.diverged:
                return self._failed(outcome, started, _divergence(tried.phase))
            await self._announce(_missed_quorum(run, attempt, tried, self._quorum(tried.selection)))
        else:
            raise UnavailableError(
                f"Round {run.rounds} of trial {run.trial} missed its quorum {ATTEMPTS} times: "
                f"{_reasons(tried.phase.faults)}."
            )
        stepped = await self._aggregate(run, tried.aggregator)
        if stepped is None:
            return self._failed(outcome, started, "the aggregated model is not finite")
        evaluation = await self._evaluate(stepped, attempt)
        outcome.assignments.extend(a.record() for a in evaluation.assignments)
        metrics = {**evaluation.metrics(), "train_loss": tried.phase.train_loss()}
        value = self._value(metrics, evaluation)
        if value is not None and not math.isfinite(value):
            self._shelf.drop(stepped.model_sha256)
            return self._failed(outcome, started, f"the model's {self._spec.objective.metric} is {value}")
        seconds = self._clock.monotonic() - started
        record = RoundRecord(
            trial=run.trial,
            round=run.rounds,
            attempts=attempt,
            model_sha256=stepped.model_sha256,
            value=value,
            metrics=metrics,
            train_loss=metrics["train_loss"],
            cohort=tried.selection.cohort,
            updates=len(tried.phase.accepted),
            evaluators=tuple(a.member.name for a in evaluation.accepted),
            seconds=seconds,
            ended_at=self._clock.now(),
        )
        return StepOutcome(stepped, record, outcome.assignments, outcome.events, "", seconds)

    def _value(self, metrics: Mapping[str, float], evaluation: EvaluationPhase) -> float | None:
        """The objective; None when nobody could evaluate in time.

        Raises:
            InvalidInputError: The task has no such metric.
        """
        name = self._spec.objective.metric
        if name not in metrics and evaluation.accepted:
            raise InvalidInputError(
                f"Task {self._spec.task} has no metric {name!r}; it has {', '.join(sorted(metrics))}: "
                "name one of them in objective.metric."
            )
        return metrics.get(name)

    def cancel(self, reason: str) -> None:
        """Calls off all work under way; the steps in progress end without a result."""
        for phase in list(self._phases):
            phase.call_off(Status.ABANDONED, reason)

    async def _train(self, run: Run, attempt: int) -> _Attempt:
        aggregator = self._spare.pop() if self._spare else self._make_aggregator(run.manifest.elements)
        await self._fleet_is_there(run)
        selection = self._select(run, attempt)  # from here to `begin` nothing else runs: cohorts stay disjoint
        phase = TrainingPhase(
            self._ledger,
            selection.wanted,
            selection.deadline_s,
            aggregator=aggregator,
            compute=self._executors.compute,
            weights_norm=run.norm,
            max_update_ratio=self._spec.guard.max_update_ratio,
        )
        await self._through(phase, self._assignments(phase, run, attempt, selection.cohort, selection.deadline_s, True))
        return _Attempt(phase, selection, aggregator)

    async def _through(self, phase: Phase, assignments: Sequence[OpenAssignment]) -> None:
        self._phases.add(phase)
        try:
            phase.begin(assignments)
            await phase.wait()
        finally:
            phase.call_off(Status.ABANDONED, "the study was interrupted")
            self._phases.discard(phase)
            await self._fleet.notify()  # clients are free again

    def _select(self, run: Run, attempt: int) -> Selection:
        """The cohort. Every trial sees the same draws, so that trials are compared on the same clients."""
        rng = rng_of(self._spec.seed, "select", run.rounds, attempt)
        free = [m for m in self._matching() if not m.busy]
        share = self._share()
        if len(free) > share:
            chosen = rng.choice(len(free), share, replace=False)
            free = [free[i] for i in sorted(chosen)] if self._spec.parallel_trials > 1 else free
        candidates = [Candidate(m.name, m.train_samples, m.updates_accepted) for m in free]
        context = SelectionContext(
            trial=run.trial,
            round=run.rounds,
            rng=rng,
            over_selection=self._spec.round.over_selection,
            deadline_s=float(run.hyperparameters.get("deadline_s") or self._spec.round.deadline.total_seconds()),
        )
        return self._selector.select(candidates, self._wanted(run), context)

    def _wanted(self, run: Run) -> int:
        asked = int(run.hyperparameters.get("cohort_size") or self._spec.round.cohort_size)
        return min(asked, self._share()) if asked else 0

    def _share(self) -> int:
        """Clients that one of the trials trained at once may use."""
        return max(1, len(self._matching()) // self._spec.parallel_trials)

    def _matching(self) -> list[Member]:
        return [member for member in self._fleet.members() if self._matches(member)]

    def _matches(self, member: Member) -> bool:
        return member.presence is Presence.CONNECTED and member.train_samples > 0 and self.mismatch(member) is None

    def mismatch(self, member: Member) -> str | None:
        """Why a client can have no work of this study, in words; None when it can."""
        if member.task != self._spec.task:
            return f"study {self._spec.name} trains task {self._spec.task} and this client serves {member.task}"
        difference = self._layout.difference(member.manifest) if self._layout else None
        if difference:
            return f"study {self._spec.name}'s model of task {member.task} is another one: here {difference}"
        return None

    async def _fleet_is_there(self, run: Run) -> None:
        """Waits for clients, and says for whom and until when.

        Raises:
            UnavailableError: They did not come.
        """
        policy = self._spec.round
        wait_s = policy.wait_for_clients.total_seconds()

        def ready() -> bool:
            free = [m for m in self._matching() if not m.busy]
            return (
                len(self._matching()) >= policy.min_clients
                and len(free) >= min(self._wanted(run) or self._share(), self._share()) > 0
            )

        if ready():
            return
        if len(self._matching()) < policy.min_clients:
            names = ", ".join(m.name for m in self._matching()) or "none"
            until = (self._clock.now() + timedelta(seconds=wait_s)).strftime("%H:%M:%S UTC")
            await self._announce(
                NewEvent(
                    "waiting_for_clients",
                    f"Waiting until {until} for {policy.min_clients} clients of task {self._spec.task}; "
                    f"here now: {names}.",
                    {"needed": policy.min_clients, "here": [m.name for m in self._matching()], "wait_s": wait_s},
                )
            )
        if not await self._fleet.wait_until(ready, wait_s):
            raise UnavailableError(
                f"Only {len(self._matching())} of the {policy.min_clients} clients of task {self._spec.task} that a "
                f"round needs came within {wait_s:g} s: start more with `fedstep client --task {self._spec.task}`."
            )

    def _assignments(
        self, phase: Phase, run: Run, attempt: int, cohort: Sequence[str], deadline_s: float, training: bool
    ) -> list[OpenAssignment]:
        members = {member.name: member for member in self._fleet.members()}
        work = fleet_pb2.WORK_TRAIN if training else fleet_pb2.WORK_EVALUATE
        kind = "train" if training else "evaluate"
        values = hp.map_to_proto(run.hyperparameters)
        assignments = []
        for name in cohort:
            message = fleet_pb2.Assignment(
                ref=fleet_pb2.AssignmentRef(
                    assignment_id=f"{self._spec.name}/{run.trial}/{run.rounds}/{kind}/{name}", attempt=attempt
                ),
                work=work,
                study=self._spec.name,
                trial=run.trial,
                round=run.rounds,
                model_sha256=run.model_sha256,
                hyperparameters=values,
                seed=seed_of(self._spec.seed, run.rounds, name),
            )
            message.time_left.FromTimedelta(timedelta(seconds=deadline_s))
            assignments.append(
                OpenAssignment(
                    message=message,
                    member=members[name],
                    owner=phase,
                    update_bytes=run.manifest.update_bytes if training else 0,
                    sent_at=self._clock.monotonic(),
                    deadline_s=deadline_s,
                    guard=LossGuard(self._spec.guard),
                )
            )
        return assignments

    def _quorum(self, selection: Selection) -> int:
        return max(1, math.ceil(self._spec.round.quorum * selection.wanted))

    async def _aggregate(self, run: Run, aggregator: Aggregator) -> Run | None:
        """The next model, on the shelf for clients; None when it is not finite."""

        def aggregate() -> Run | None:
            update = aggregator.finish()
            weights, state = self._server_optimizer.step(run.weights, update, run.optimizer_state, run.hyperparameters)
            stepped = run.stepped(weights, state)
            if stepped is not None:
                self._shelf.put(stepped.payload(), stepped.manifest, stepped.model_sha256)
            return stepped

        stepped = await self._executors.compute.run(aggregate)
        self._spare.append(aggregator)
        return stepped

    def _give_back(self, aggregator: Aggregator) -> None:
        """An aggregator with half a round in it starts the next one empty."""
        if aggregator.count:
            aggregator.finish()
        self._spare.append(aggregator)

    async def _evaluate(self, run: Run, attempt: int) -> EvaluationPhase:
        """Measures the new model on the evaluation cohort, which is drawn apart from the training cohort."""
        policy = self._spec.evaluation
        names = [m.name for m in self._matching() if m.validation_samples > 0]
        cohort = evaluation_cohort(names, policy.cohort_size, self._spec.seed)
        deadline_s = policy.deadline.total_seconds()
        phase = EvaluationPhase(self._ledger, len(cohort), deadline_s)
        await self._through(phase, self._assignments(phase, run, attempt, cohort, deadline_s, False))
        return phase

    def _failed(self, outcome: StepOutcome, started: float, reason: str) -> StepOutcome:
        seconds = self._clock.monotonic() - started
        return StepOutcome(outcome.run, None, outcome.assignments, outcome.events, reason, seconds)


def _divergence(phase: TrainingPhase) -> str:
    first = phase.diverged[0]
    return (
        f"training diverged on {len(phase.diverged)} of {len(phase.assignments)} clients; "
        f"{first.member.name}: {first.note}"
    )


def _missed_quorum(run: Run, attempt: int, tried: _Attempt, quorum: int) -> NewEvent:
    accepted = len(tried.phase.accepted)
    return NewEvent(
        "round_missed",
        f"Round {run.rounds} of trial {run.trial}, attempt {attempt}: {accepted} updates where {quorum} are the "
        f"quorum ({_reasons(tried.phase.faults)}).",
        {"trial": run.trial, "round": run.rounds, "attempt": attempt, "updates": accepted, "quorum": quorum},
    )


def _fault_events(run: Run, phase: TrainingPhase) -> list[NewEvent]:
    """One event for every client whose work came to nothing, and why."""
    return [
        NewEvent(
            f"client_{a.status.value}",
            f"{a.member.name} in round {run.rounds} of trial {run.trial}: {a.status.value}, {a.note}.",
            {"client": a.member.name, "trial": run.trial, "round": run.rounds, "reason": a.note},
        )
        for a in phase.faults
    ]


def _reasons(faults: Sequence[OpenAssignment]) -> str:
    return "; ".join(f"{a.member.name}: {a.note}" for a in faults[:3]) or "nobody answered"
