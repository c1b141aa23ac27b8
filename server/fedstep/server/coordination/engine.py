"""The one thing that trains: a run, stepped by a round."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedstep.common.clock import Clock
from fedstep.common.errors import InvalidInputError, UnavailableError
from fedstep.common.phrases import count_text
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import sha256
from fedstep.server.aggregation.base import Aggregator, ServerOptimizer
from fedstep.server.coordination import narrate
from fedstep.server.coordination.buffered import BufferedArm
from fedstep.server.coordination.cohorts import Cohorts
from fedstep.server.coordination.dispatch import Dispatcher
from fedstep.server.coordination.eligible import Eligible
from fedstep.server.coordination.executors import Executors
from fedstep.server.coordination.fleet import Fleet
from fedstep.server.coordination.intake import Intake
from fedstep.server.coordination.late import LateUpdates
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.measuring_times import MeasuringTimes
from fedstep.server.coordination.outcome import StepOutcome, StoppedError, Work, cost_of
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.phases import EvaluationPhase, Phase, TrainingPhase
from fedstep.server.coordination.pricing import Experience
from fedstep.server.coordination.run import Run, default_manifest
from fedstep.server.coordination.shelf import Shelf, cut
from fedstep.server.coordination.trained import Trained
from fedstep.server.coordination.under_way import UnderWay
from fedstep.server.coordination.waiting import Announce, Waiting
from fedstep.server.selection.base import Selector
from fedstep.server.storage.base import AssignmentRecord, NewEvent, RoundRecord
from fedstep.server.tuning.base import Arm, Cost, Prices, Unpriced

ATTEMPTS = 3
"""Tries of one round before the fleet is taken to be unable to run it."""

_FAULTY = frozenset({Status.FAILED, Status.REFUSED})
_OTHERS_COME_S = 2.0
"""Waited before a model is measured again because it failed at all who were there: others may be about to come."""

_MEND = "Mend what they say, in the task or in its data"


@dataclass(frozen=True)
class _Measured:
    """What an evaluation cohort said."""

    value: float | None
    metrics: dict[str, float]
    losses: Mapping[str, float]
    evaluators: tuple[str, ...]


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
        paces: How fast clients are.
        selector: Chooses cohorts.
        make_aggregator: Makes the aggregator of a round, for so many elements.
        server_optimizer: Makes the next model.
        announce: For what cannot wait.
        time_left_s: See `Cohorts`.
        charge: Commits what an arm's work cost that came to nothing, a missed quorum or a round unmeasured, with its
            event.
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
        paces: PaceBook,
        selector: Selector,
        make_aggregator: Callable[[int], Aggregator],
        server_optimizer: ServerOptimizer,
        announce: Announce,
        time_left_s: Callable[[], float],
        charge: Callable[[int, Cost, NewEvent], Awaitable[None]],
    ) -> None:
        self._spec = spec
        self._task = task
        self._fleet = fleet
        self._ledger = ledger
        self._shelf = shelf
        self._executors = executors
        self._clock = clock
        self.eligible = Eligible(spec, fleet)
        self.waiting = Waiting(spec, fleet, self.eligible, clock, announce, time_left_s)
        self.cohorts = Cohorts(spec, fleet, paces, selector, self.eligible, self.waiting)
        self._make_aggregator = make_aggregator
        self._server_optimizer = server_optimizer
        self._charge = charge
        self._upload_s = paces.upload_s
        # Of this engine's own: a study that is put off and goes on trains rounds again that clients have done.
        life = f"{ledger.life}{uuid.uuid4().hex[:4]}"
        self._dispatcher = Dispatcher(spec, task, clock, life)
        self._arms: dict[int, LateUpdates] = {}
        self._buffered: dict[int, BufferedArm] = {}
        self._phases: dict[Phase, None] = {}
        self._experience = Experience()
        self._measuring = MeasuringTimes(fleet)

    def prices(self) -> Prices:
        """What rounds are expected to take, as it stands now, for the tuner's thread; of buffered rounds nothing."""
        known = None if self._spec.round.buffered else self.cohorts.prices(self._task, self._experience)
        return known or Unpriced()

    def under_way(self) -> list[UnderWay]:
        """What clients do at this moment, by trial."""
        phases = [*(phase.under_way() for phase in self._phases), *(arm.under_way() for arm in self._buffered.values())]
        return sorted((found for found in phases if found is not None), key=lambda found: found.trial)

    def upload_s(self, assignment: OpenAssignment) -> float:
        """Seconds that its update is expected to be on its way."""
        return self._upload_s(assignment.member, assignment.update_bytes) if assignment.update_bytes else 0.0

    async def prepare(self) -> None:
        """Learns the layout of the task's model, which clients are compared by. Before the first step."""
        self.eligible.compare_with(await self._executors.compute.run(default_manifest, self._task))

    async def step(self, run: Run, arm: Arm, last: bool) -> StepOutcome:
        """One round: select, dispatch, collect, aggregate, evaluate. The caller observes and commits.

        Args:
            run: What is trained.
            arm: How.
            last: Whether it is the arm's last round, which is always measured.

        Raises:
            UnavailableError: Not enough clients came, or they failed round after round for reasons of their own.
            StoppedError: The study was over before the round began, or before it was measured.
        """
        started = self._clock.monotonic()
        outcome = StepOutcome(run)
        try:
            train = self._fill if self._is_buffered(arm) else self._train
            trained = await train(run, arm, last, outcome)
            stepped = run if arm.discard else await self._aggregate(run, arm, outcome)
            try:
                train_loss = trained.train_loss()
                evaluating = arm.measured and not arm.discard and (last or arm.every_round)
                measured = await self._evaluate(stepped, arm, evaluating, train_loss, outcome)
            except BaseException as error:
                due = self._priced(run, outcome, started).due
                self.end(run.trial)
                if stepped is not run:
                    self._shelf.drop(stepped.model_sha256)
                if isinstance(error, UnavailableError | StoppedError):
                    again = isinstance(error, UnavailableError)
                    await self._charge(run.trial, due, narrate.round_unmeasured(run.trial, run.rounds, again))
                raise
        except _FailedError as failure:
            return replace(self._priced(run, outcome, started), failed=str(failure))
        if (late := self._arms.get(run.trial)) is not None:
            outcome.events.extend(late.drain_events())
        outcome = self._priced(run, outcome, started)
        record = self._record(run, stepped, trained, measured, outcome)
        self.cohorts.observe(record, outcome.assignments, outcome.late, arm.cohort)
        return replace(
            outcome,
            run=stepped,
            record=record,
            value=measured.value,
            metrics=measured.metrics,
            losses=measured.losses,
            clients=trained.reports(len(arm.points)),
        )

    async def measure(self, run: Run, arm: Arm) -> StepOutcome:
        """Measures a run on its arm's evaluation cohort, and trains nothing.

        Raises:
            UnavailableError: Not enough clients came.
            StoppedError: The study was over before.
        """
        started = self._clock.monotonic()
        outcome = StepOutcome(run)
        try:
            measured = await self._evaluate(run, arm, True, math.nan, outcome)
        except _FailedError as failure:
            return replace(self._priced(run, outcome, started), failed=str(failure))
        outcome = self._priced(run, outcome, started)
        return replace(outcome, value=measured.value, metrics=measured.metrics, losses=measured.losses)

    def _priced(self, run: Run, outcome: StepOutcome, started: float) -> StepOutcome:
        """What was done, well or not, with what it cost."""
        if run.trial in self._buffered:
            outcome.trained.append(self._buffered[run.trial].drain_cost())  # of what goes on
        measuring = [assignment for assignment in outcome.assignments if assignment.work == Work.EVALUATE]
        seconds = self._clock.monotonic() - started
        cost = sum(outcome.trained, cost_of(run, measuring))
        late = len(outcome.late) * run.manifest.update_bytes
        cost += Cost(int(bool(outcome.trained)), payload_bytes=late, update_bytes=late)
        return replace(outcome, cost=replace(cost, seconds=seconds))

    async def _train(self, run: Run, arm: Arm, last: bool, outcome: StepOutcome) -> Trained:
        """Trains cohorts until one meets the quorum."""
        for attempt in range(1, ATTEMPTS + 1):
            trained = await self._train_once(run, arm, attempt, last, outcome)
            records = [assignment.record() for assignment in trained.assignments]
            outcome.trained.append(cost_of(run, records))
            self._note(run, trained, records, outcome)
            if len(trained.accepted) >= trained.quorum or (arm.discard and trained.assignments):
                return trained
            if trained.diverged:
                raise _FailedError(narrate.divergence(trained.diverged, len(trained.assignments)))
            self._arms[run.trial].intake.start_again(self._make_aggregator(run.manifest.elements), run.rounds)
            await self._miss(run, trained, outcome)
        raise _missed_too_often(run, trained)

    async def _fill(self, run: Run, arm: Arm, last: bool, outcome: StepOutcome) -> Trained:
        """Fills a buffer, in one attempt or several: what is in it stays there."""
        buffered = self._buffered_of(run, arm)
        for attempt in range(1, ATTEMPTS + 1):
            trained = await buffered.train(attempt, last)
            outcome.trained.append(buffered.drain_cost())
            enough = len(trained.accepted) >= trained.quorum
            if enough or trained.diverged:
                # On record in the round that they went into, whatever round they were begun in.
                records = [replace(assignment.record(), round=run.rounds) for assignment in trained.assignments]
                self._note(run, trained, records, outcome)
            if enough:
                return trained
            if trained.diverged:
                raise _FailedError(narrate.divergence(trained.diverged, len(trained.assignments)))
            await self._miss(run, trained, outcome)
        raise _missed_too_often(run, trained)

    def _is_buffered(self, arm: Arm) -> bool:
        """Not where updates are thrown away, nor where each client is dealt a configuration of its own."""
        return self._spec.round.buffered and not (arm.discard or arm.points)

    def _buffered_of(self, run: Run, arm: Arm) -> BufferedArm:
        if run.trial not in self._buffered:
            aggregator = self._make_aggregator(run.manifest.elements)
            bounds = self._spec.guard.max_update_ratio, self._spec.round.max_staleness
            self._buffered[run.trial] = BufferedArm(
                self._spec,
                arm,
                run,
                cohorts=self.cohorts,
                dispatcher=self._dispatcher,
                ledger=self._ledger,
                fleet=self._fleet,
                shelf=self._shelf,
                intake=Intake(aggregator, self._executors.compute, *bounds, damped=True),
            )
        return self._buffered[run.trial]

    @staticmethod
    def _note(run: Run, trained: Trained, records: list[AssignmentRecord], outcome: StepOutcome) -> None:
        outcome.assignments.extend(records)
        outcome.events.extend(trained.events)
        outcome.events.extend(narrate.client_faults(run.trial, run.rounds, trained.faults))

    async def _miss(self, run: Run, trained: Trained, outcome: StepOutcome) -> None:
        """An attempt has missed its quorum: it is charged at once, since it may have been the last thing done."""
        outcome.charged.append(outcome.trained[-1])
        await self._charge(run.trial, outcome.trained[-1], narrate.round_missed(run.trial, run.rounds, trained))
        if trained.attempt == ATTEMPTS - 1:
            await self.waiting.to_hear_of([a.member for a in trained.assignments if a.status is not Status.ACCEPTED])

    async def _train_once(self, run: Run, arm: Arm, attempt: int, last: bool, outcome: StepOutcome) -> Trained:
        """Select, dispatch, collect. Updates go into the aggregator as they land."""
        late = self._late_of(run)
        late.begin_round(run.rounds, last)
        self._free_clients()
        if not await self._waited(self.cohorts.wait(run, arm), outcome):
            raise StoppedError("the study was over before the round began")
        self._free_clients()  # of those that came back meanwhile
        again = self.cohorts.earlier(run, arm, attempt)
        late.free(again, "its client is asked again, as it was in the arm that this one is compared with")
        # From here to `begin` nothing else runs: cohorts stay disjoint.
        take_late = self._spec.round.late_updates == "discount" and not (last or arm.discard)
        selection = self.cohorts.select(run, arm, attempt, take_late)
        if selection.waited_for:
            event = narrate.waits_for_turns(run.trial, run.rounds, [*selection.waited_for])
            outcome.events.append(replace(event, happened_at=self._clock.now()))
        quorum = max(1, math.ceil(self._spec.round.quorum * selection.wanted))
        phase = TrainingPhase(
            self._ledger,
            selection.wanted,
            selection.deadline_s,
            intake=late.intake,
            latest_s=selection.latest_s,
            upload_s=self._upload_s,
            late=late if take_late else None,
            quorum=quorum,
            unhurried=selection.unhurried,
            newcomers=selection.newcomers,
            open_end=selection.open_end,
        )
        members = self.cohorts.members(selection.cohort)
        work = self._dispatcher.trainings(phase, phase.time_left_s, run, arm, members, attempt, selection.step_budgets)
        as_any_other = attempt == 1 and not (arm.discard or arm.clients or arm.max_steps)
        prices = self.cohorts.prices(self._task, self._experience) if as_any_other else None
        began = self._clock.monotonic()
        await self._collect(phase, work)
        if prices is not None:
            predicted_s = prices.predicted_s(run.hyperparameters, [run.rounds])
            self._experience.trained(predicted_s, self._clock.monotonic() - began)
        return phase.trained(selection.cohort, attempt)

    async def _waited(self, wait: Awaitable[bool], outcome: StepOutcome) -> bool:
        """Waits for clients, which is no time of the round's; answers as `wait` does."""
        asked_at = self._clock.monotonic()
        came = await wait
        outcome.waited_s.append(self._clock.monotonic() - asked_at)
        return came

    def _late_of(self, run: Run) -> LateUpdates:
        if run.trial not in self._arms:
            aggregator = self._make_aggregator(run.manifest.elements)
            intake = Intake(aggregator, self._executors.compute, self._spec.guard.max_update_ratio)
            self._arms[run.trial] = LateUpdates(self._ledger, intake)
        return self._arms[run.trial]

    def _free_clients(self) -> None:
        """Calls late work off where the next round could not begin without its clients."""
        if self.cohorts.needs_late_clients():
            for late in self._arms.values():
                late.call_off("its client is needed for the next round")

    def end(self, trial: int) -> None:
        """An arm trains no more: what is still under way for it is called off."""
        reason = "its trial is over"
        if late := self._arms.pop(trial, None):
            late.call_off(reason)
        if buffered := self._buffered.pop(trial, None):
            buffered.end(reason)

    async def _collect(self, phase: Phase, assignments: Sequence[OpenAssignment]) -> None:
        self._phases[phase] = None
        try:
            phase.begin(assignments)
            await phase.wait()
        finally:
            del self._phases[phase]
            # Does something only where the study was cancelled; else nothing is open.
            phase.call_off(Status.ABANDONED, "the study was interrupted")
            self._fleet.wake()  # clients are free again

    async def _aggregate(self, run: Run, arm: Arm, outcome: StepOutcome) -> Run:
        """The next model, on the shelf for clients."""
        buffered = self._buffered.get(run.trial)
        intake = buffered.buffer.intake if buffered else self._arms[run.trial].intake

        def step() -> Run | None:
            update = intake.finish()
            weights, state = self._server_optimizer.step(run.weights, update, run.optimizer_state, run.hyperparameters)
            return run.stepped(weights, state, arm.average)

        stepped = await self._executors.compute.run(step)
        late = intake.drain_late()
        if not buffered:  # there, most updates are of an earlier model
            outcome.late.extend(late)
            outcome.events.extend(map(narrate.late_update, late))
        if stepped is None:
            raise _FailedError("the aggregated model is not finite")
        payload = stepped.payload()
        digest, ready = await asyncio.gather(
            self._executors.bulk.run(sha256, payload), self._executors.compute.run(cut, payload)
        )
        self._shelf.put(ready, stepped.manifest, digest)
        stepped = replace(stepped, model_sha256=digest)
        if buffered:
            buffered.went_on(stepped)
        return stepped

    async def _evaluate(
        self, run: Run, arm: Arm, evaluating: bool, train_loss: float, outcome: StepOutcome
    ) -> _Measured:
        """Measures a model on its evaluation cohort; again where all came to nothing, on others if there are.

        Raises:
            UnavailableError: The measurement failed at all who were asked, time and again: the task's own code, or its
                data.
        """
        faults: list[OpenAssignment] = []
        for attempt in range(1, ATTEMPTS + 1):
            if faults:
                await asyncio.sleep(_OTHERS_COME_S)
            least = self._spec.round.min_clients if faults else 1
            if evaluating and not await self._waited(self.cohorts.wait_to_measure(arm.cohort, least), outcome):
                raise StoppedError("the study was over before the model was measured")
            began = self._clock.monotonic()
            failed = {assignment.member.name for assignment in faults}
            others = self.cohorts.evaluators(arm.cohort, failed) if evaluating else ()
            cohort = others or (self.cohorts.evaluators(arm.cohort) if failed else ())
            members, deadline_s = self.cohorts.members(cohort), self._spec.evaluation.deadline.total_seconds()
            expected_s = self._measuring.expected_s(members, self.cohorts.measuring_s(cohort, run))
            silent = self._measuring.silent(members)
            phase = EvaluationPhase(self._ledger, len(cohort), deadline_s, expected_s, silent)
            work = self._dispatcher.evaluations(phase, phase.time_left_s, run, members, attempt)
            await self._collect(phase, work)
            self._measuring.learn_from(phase)
            phase.refuse_outliers()
            outcome.events.extend(narrate.client_faults(run.trial, max(0, run.rounds - 1), phase.faults))
            outcome.assignments.extend(assignment.record() for assignment in phase.assignments)
            faults += [assignment for assignment in phase.assignments if assignment.status in _FAULTY]
            ends = {assignment.status for assignment in phase.assignments}
            if not evaluating or not ends <= {Status.LOST, *_FAULTY}:
                break
        else:
            if faults:
                raise UnavailableError(
                    f"The model of trial {run.trial} after {count_text(run.rounds, 'round')} could not be measured: "
                    f"{narrate.reasons(faults)}. {_MEND}."
                )
        if evaluating:
            self._experience.measure_s = self._clock.monotonic() - began
        metrics = {**phase.metrics(), "train_loss": train_loss}
        value = self._value(metrics, bool(phase.accepted))
        evaluators = tuple(assignment.member.name for assignment in phase.accepted)
        return _Measured(value, metrics, phase.losses("loss"), evaluators)

    def _record(
        self, run: Run, stepped: Run, trained: Trained, measured: _Measured, outcome: StepOutcome
    ) -> RoundRecord:
        counts = {
            "partial_updates": trained.partial,
            "late_updates": len(outcome.late),
            "staleness": trained.staleness,
        }
        return RoundRecord(
            trial=run.trial,
            round=run.rounds,
            attempts=trained.attempt,
            model_sha256=stepped.model_sha256,
            value=measured.value,
            metrics=measured.metrics | {name: float(count) for name, count in counts.items() if count},
            train_loss=measured.metrics["train_loss"],
            cohort=trained.cohort,
            updates=len(trained.accepted),
            evaluators=measured.evaluators,
            seconds=outcome.cost.seconds - math.fsum(outcome.waited_s),
            ended_at=self._clock.now(),
            payload_bytes=outcome.cost.payload_bytes,
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


def _missed_too_often(run: Run, trained: Trained) -> UnavailableError:
    not_for_want_of_time = {a.standing for a in trained.faults} <= _FAULTY
    fix = (
        _MEND
        if trained.faults and not_for_want_of_time
        else "See that they are there, or give them longer (round.deadline), or ask for fewer (round.quorum)"
    )
    return UnavailableError(
        f"Round {run.rounds} of trial {run.trial} missed its quorum {ATTEMPTS} times: "
        f"{narrate.reasons(trained.faults)}. {fix}."
    )
