"""One study, from its first proposal to its result."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from fedstep.common.errors import FedstepError, StorageError, UnavailableError
from fedstep.common.logs import concerning
from fedstep.common.task import Task
from fedstep.server.aggregation.registry import create_aggregator, create_server_optimizer
from fedstep.server.coordination import checkpoint, conclusion, final_rounds, narrate
from fedstep.server.coordination.account import Account, cost_of_arm, counted
from fedstep.server.coordination.arms import arm_of, details_of
from fedstep.server.coordination.commits import Commits
from fedstep.server.coordination.engine import RunEngine
from fedstep.server.coordination.executors import to_its_end
from fedstep.server.coordination.mismatches import Mismatches
from fedstep.server.coordination.needed import needed_models
from fedstep.server.coordination.outcome import StepOutcome, StoppedError
from fedstep.server.coordination.participants import shares_in, updates_taken_late
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.pausing import PausedError
from fedstep.server.coordination.run import Run
from fedstep.server.coordination.runs import Runs
from fedstep.server.coordination.shared_tuner import SharedTuner
from fedstep.server.coordination.stopwatch import Stopwatch
from fedstep.server.report.participation import participation
from fedstep.server.selection.registry import create_selector
from fedstep.server.storage.base import (
    AssignmentRecord,
    Change,
    NewEvent,
    Spent,
    StudyRecord,
    StudyState,
    TrialRecord,
    TrialState,
    all_trials,
)
from fedstep.server.tuning.base import Arm, Decision, Note, Observation, ProposeContext
from fedstep.server.tuning.ranking import best_trial
from fedstep.server.tuning.registry import create_tuner

log = logging.getLogger(__name__)

_RECENT_ROUNDS = 20
"""Whoever took part in one of so many is expected back when the coordinator was started again."""

_ENDS = {Decision.FINISH: TrialState.COMPLETED, Decision.PRUNE: TrialState.PRUNED, Decision.FAIL: TrialState.FAILED}


class StudyRunner:
    """Runs a study. A round reads: propose, step (select, dispatch, collect, aggregate, evaluate), observe, commit.

    Args:
        record: The study as the store has it.
        task: Its task.
        parts: What it works with.
        tidy: Removes those of these model files, or of all, that no study needs.
        announce_soon: Commits an event where nobody can wait for it.
    """

    then = "Then run the same study file again to go on."
    """What a person does when the cause of an interruption is gone."""

    def __init__(
        self,
        record: StudyRecord,
        task: Task,
        parts: Parts,
        tidy: Callable[[Set[bytes] | None], Awaitable[None]],
        announce_soon: Callable[[str, NewEvent], None],
    ) -> None:
        self._tidy = tidy
        self.spec = record.spec
        self.trials: dict[int, TrialRecord] = {}
        self._task = task
        self._parts = parts
        self._tuner_state = record.tuner_state
        self._begun_before = record.updated_at > record.created_at
        self._runs = Runs(record.spec, task, parts)
        self.account = Account(record, parts.clock)
        stopwatch = Stopwatch(parts.clock, parts.overhead)
        self.tuner = SharedTuner(
            parts.executors.storage, stopwatch, parts.clock, commit=lambda: self.commits.make(Change())
        )
        self.commits = Commits(record, self.account, self.tuner, stopwatch, parts)
        self.engine = RunEngine(
            self.spec,
            task,
            fleet=parts.fleet,
            ledger=parts.ledger,
            shelf=parts.shelf,
            executors=parts.executors,
            clock=parts.clock,
            paces=parts.paces,
            selector=create_selector(self.spec.selector),
            make_aggregator=lambda elements: create_aggregator(self.spec.aggregator, elements),
            server_optimizer=create_server_optimizer(self.spec.aggregator),
            announce=self.commits.announce,
            time_left_s=lambda: self.account.time_left_s,
            charge=self.commits.charge,
        )
        self.leaving = False
        """The coordinator stops, and cancels whatever runs this."""
        self.lost_storage = False
        """It was interrupted because the database, or the model folder, failed it, and may be taken up again."""
        self._mismatches = Mismatches(
            parts.fleet, self.engine.eligible, lambda event: announce_soon(self.spec.name, event)
        )

    async def run(self, taken_up_again: bool = False) -> None:
        """Runs the study to its end, or to where it is interrupted; its state says which.

        Args:
            taken_up_again: Whoever calls takes it up again when the database has failed it and works again.
        """
        forget = self._parts.fleet.when_joined(self._mismatches.tell)
        try:
            await self._begin()
            await self.tuner.is_searching(True)
            await self._search()
            await self.tuner.is_searching(False)
            await self._conclude()
        except PausedError:
            await self.commits.pause()
        except asyncio.CancelledError:
            text = "the coordinator was stopped; it goes on when it is started again"
            await self.commits.end(StudyState.INTERRUPTED, text, goes_on=True, in_haste=True)
            raise
        except UnavailableError as error:
            await self.commits.end(StudyState.INTERRUPTED, f"{error.message} {self.then}".rstrip())
        except StorageError as error:
            self.lost_storage = taken_up_again
            then = "The study goes on by itself." if taken_up_again else self.then
            await self.commits.end(StudyState.INTERRUPTED, f"{error.message} {then}".rstrip(), goes_on=taken_up_again)
        except FedstepError as error:
            await self.commits.end(StudyState.FAILED, error.message)
        except Exception as error:  # a task's own code may raise anything
            log.exception("study %s failed", self.spec.name)
            text = f"{type(error).__name__}: {error}; the coordinator's log has the rest"
            await self.commits.end(StudyState.FAILED, text)
        finally:
            forget()
            self._runs.close()
            await self.tuner.is_searching(False)
            await self.tuner.close()

    async def stop(self) -> None:
        """Ends the study after the rounds under way."""
        if not self.state.ended:
            self.commits.state = StudyState.STOPPING
            self.engine.waiting.stop()
            await self.tuner.wake()

    async def pause(self) -> None:
        """Leaves off after the rounds under way, so that another runner can go on from there."""
        self.commits.pausing = True
        self.engine.waiting.stop()
        await self.tuner.wake()

    @property
    def state(self) -> StudyState:
        """Where it stands."""
        return self.commits.state

    @property
    def pausing(self) -> bool:
        """Whether it was told to pause: it leaves off after the rounds under way, whatever it is told next."""
        return self.commits.pausing

    @property
    def spent(self) -> Spent:
        """What it has cost so far."""
        return self.account.spent

    @property
    def begun(self) -> bool:
        """Whether it has read its trials, and knows what it needs."""
        return self.tuner.is_there

    def kept_models(self) -> set[bytes]:
        """Digests of what a resumed study, or its result, would need."""
        kept = self.tuner.inner.keeps() if self.tuner.is_there else set()
        return needed_models(self.spec, list(self.trials.values()), kept)

    def best(self) -> TrialRecord | None:
        """The trial the study would end with now."""
        delivered = self.tuner.inner.delivers() if self.tuner.is_there else None
        if delivered is not None and self.trials[delivered].model_sha256:
            return self.trials[delivered]
        return best_trial(self.spec, self.trials.values())

    # propose ----------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        await self.engine.prepare()
        storage = self._parts.executors.storage
        trials = await storage.run(all_trials, self._parts.store, self.spec.name)
        self.trials = {trial.number: trial for trial in trials}
        tuner = await self.tuner.ask(create_tuner, self.spec, self._parts.database_url, self._task.defaults)
        if self._begun_before:
            open_arms = [arm_of(trial) for trial in trials if trial.state is TrialState.RUNNING]
            await self.tuner.ask(tuner.restore, self._tuner_state, open_arms)
        self.tuner.enter(tuner)
        kept = tuner.keeps()
        ended = [trial for trial in trials if trial.state is not TrialState.RUNNING and trial.model_sha256]
        await self._runs.restore(trial for trial in ended if trial.number in kept)
        if self.state is StudyState.INTERRUPTED:
            self.commits.state = StudyState.RUNNING  # before the commit: it may be told to stop meanwhile
        rounds = sum(trial.rounds for trial in trials)
        await self.commits.make(Change(state=self.state, events=[narrate.study_started(self.spec, rounds)]))
        for member in self._parts.fleet.members():
            self._mismatches.tell(member)
        if trials:
            rounds_before = await storage.run(self._parts.store.rounds, self.spec.name)
            latest = rounds_before[-_RECENT_ROUNDS:]
            recent = {name for record in latest for name in (*record.cohort, *record.evaluators)}
            late = await updates_taken_late(self.spec.name, self._parts)
            self.engine.cohorts.recall(rounds_before, await storage.run(self._parts_taken), self._cohorts(), late)
            await self.engine.waiting.for_return(recent)

    def _parts_taken(self) -> list[AssignmentRecord]:
        """Who was asked in earlier lives of the coordinator, and how it went."""
        return [*self._parts.store.assignments(self.spec.name, with_steps=False)]

    def _cohorts(self) -> dict[int, int]:
        """The number of every trial's evaluation cohort."""
        return {number: arm_of(trial).cohort for number, trial in self.trials.items()}

    async def _search(self) -> None:
        waiting = [trial for trial in self.trials.values() if trial.state is TrialState.RUNNING]
        lanes = self.spec.parallel_trials
        try:
            async with asyncio.TaskGroup() as group:
                for lane in range(lanes):
                    group.create_task(self._lane(waiting[lane::lanes]), name=f"{self.spec.name} lane {lane}")
        except BaseExceptionGroup as failures:
            if self.leaving:  # while a lane failed: the group tells of that only
                raise asyncio.CancelledError from failures
            raise failures.exceptions[0] from None
        self._check_pause()

    def _check_pause(self) -> None:
        """Raises where the study was told to pause.

        Raises:
            PausedError: It was.
        """
        if self.pausing:
            raise PausedError

    async def _lane(self, waiting: list[TrialRecord]) -> None:
        """Trains one trial after the other: first those that were under way, then new ones."""
        for trial in waiting:
            if not self.pausing:
                await self._train(await self._runs.resume(trial))
        while (run := await self._propose()) is not None:
            await self._train(run)

    async def _propose(self) -> Run | None:
        """The next trial; None when there is none."""
        async with self.tuner.turn:
            while True:
                number = len(self.trials)
                per_trial = self.tuner.inner.per_trial
                tried = per_trial and number >= self.spec.budget.trials
                if self.pausing or tried or self._over(None if per_trial else 0):
                    return None
                context = ProposeContext(1, number, self._runs.open, self.engine.prices())
                arms = await self.tuner.ask(self.tuner.inner.propose, context)
                if arms and self._over(arms[0].rounds):
                    await self._withdraw(arms[0])
                    return None
                if arms and self._runs.has_ended(arms[0].parents):
                    return await to_its_end(self._start(arms[0]))
                if not arms and not self._runs.open:
                    if self._over() or not await self.tuner.somebody_asks():
                        return None
                    continue
                await self.tuner.turn.wait()  # for an observation, or for the parents' last commits; then it asks again

    async def _withdraw(self, arm: Arm) -> None:
        """The budget was used up while an arm was proposed: no trial of the tuner's own stays open for it."""
        if self.tuner.inner.per_trial:
            observation = Observation(arm.number, 0, None, failed=self._why_over())
            await self.tuner.ask(self.tuner.inner.observe, observation)

    async def _start(self, arm: Arm) -> Run:
        """A new arm, from the study's initial model or from where its parents ended."""
        trial = TrialRecord(arm.number, TrialState.RUNNING, arm.hyperparameters, details=details_of(arm))
        run = await self._runs.start(arm)
        with self._parts.blobs.hold():
            if arm.parents:
                beside = await self._runs.save(run)
                trial = replace(trial, first_round=run.rounds, model_sha256=run.model_sha256, optimizer_sha256=beside)
            self.trials[arm.number] = trial
            await self.commits.make(Change(trials=[trial], events=[narrate.trial_started(trial)]))
        return run

    # step, observe, commit ----------------------------------------------------------------------------------------

    async def _train(self, run: Run) -> None:
        """A trial's rounds, until it is complete, pruned or failed, or the study is over.

        A round is committed while clients already train the next one; that one is not committed before it.
        """
        state = TrialState.RUNNING
        committing: asyncio.Task[None] | None = None
        arm = arm_of(self.trials[run.trial])
        try:
            while state is TrialState.RUNNING and not self.pausing and not self._over(arm.rounds):
                outcome = await self._step(run, arm)
                if committing is not None:
                    await to_its_end(committing)
                state, notes = await to_its_end(self._observe(run, arm, outcome))
                committing = asyncio.create_task(self._commit_round(run, outcome, state, notes))
                run = outcome.run
        except StoppedError:
            pass
        finally:
            self.engine.end(run.trial)
            if committing is not None:
                await to_its_end(committing)
        if state is TrialState.RUNNING and not self.pausing:
            await to_its_end(self._give_up(run))
        async with self.tuner.turn:
            self._runs.end(run.trial, self.tuner.inner.keeps())
            self.tuner.turn.notify_all()
        await self._tidy(None)  # which is the best may have changed, and what the tuner keeps

    async def _step(self, run: Run, arm: Arm) -> StepOutcome:
        """One round of an arm, or its measurement."""
        with concerning(trial=run.trial, round=run.rounds), self._unless_over(arm.rounds):
            if arm.rounds == 0:
                return await self.engine.measure(run, arm)
            return await self.engine.step(run, arm, self._is_last(run, arm))

    def _is_last(self, run: Run, arm: Arm) -> bool:
        rounds = self.spec.budget.rounds_per_trial if arm.rounds is None else arm.rounds
        return arm.discard or run.rounds - self.trials[run.trial].first_round + 1 >= rounds

    async def _observe(self, run: Run, arm: Arm, outcome: StepOutcome) -> tuple[TrialState, list[Note]]:
        """What becomes of the arm after the round, and what the tuner decided upon it."""
        last = self._is_last(run, arm)
        observation = Observation(
            run.trial,
            run.rounds - self.trials[run.trial].first_round,
            outcome.value,
            outcome.metrics,
            last=last,
            failed=outcome.failed,
            losses=outcome.losses,
            clients=outcome.clients,
            cost=outcome.cost,
        )
        self.account.spend(outcome.due)
        async with self.tuner.turn:
            decision = await self.tuner.ask(self.tuner.inner.observe, observation)
            notes = self.tuner.inner.notes()
            self.tuner.turn.notify_all()
        return _ENDS.get(decision, TrialState.COMPLETED if last else TrialState.RUNNING), notes

    async def _commit_round(
        self,
        run: Run,
        outcome: StepOutcome,
        state: TrialState,
        notes: Sequence[Note] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """The model first, then all that names it in one transaction, then the model before it may go."""
        trial = before = self.trials[run.trial]
        events = list(outcome.events)
        with self._parts.blobs.hold():
            if outcome.record is not None:
                trial = replace(
                    trial,
                    state=state,
                    values=(*trial.values, outcome.record.value),
                    metrics=outcome.metrics,
                    model_sha256=outcome.run.model_sha256,
                    optimizer_sha256=await self._runs.save(outcome.run),
                    details=dict(trial.details if details is None else details),
                )
                events.append(narrate.round_committed(self.spec, outcome.record))
            elif outcome.failed:
                trial = replace(trial, state=state, message=outcome.failed)
            else:  # it was measured only
                details = {**trial.details, "value": outcome.value}
                trial = replace(trial, state=state, metrics=outcome.metrics, details=details)
            if state is not before.state:
                events.append(narrate.trial_ended(self.spec, trial))
            events += [narrate.decision(note) for note in notes]
            spent, cost = counted(outcome.due), cost_of_arm(run.trial, outcome.due)
            change = Change([trial], outcome.record, outcome.assignments, events, spent=spent, cost=cost)
            await self.commits.make(change, then=lambda: self.trials.update({run.trial: trial}))
        await self._tidy({before.model_sha256, before.optimizer_sha256} - {b""})
        self._runs.went_on(run, outcome.run)

    async def _give_up(self, run: Run) -> None:
        """The study is over before the trial is."""
        reason = self._why_over()
        observation = Observation(run.trial, run.rounds, None, failed=reason)
        async with self.tuner.turn:
            await self.tuner.ask(self.tuner.inner.observe, observation)
            self.tuner.inner.notes()  # what it decided upon that nobody acts on
            await self._commit_round(run, StepOutcome(run, None, failed=reason), TrialState.FAILED)
            self.tuner.turn.notify_all()

    def _over(self, rounds: int | None = None) -> bool:
        """Whether an arm of so many rounds may not begin, or go on; one of none is measured only."""
        used_up = self.account.used_up_for_measuring if rounds == 0 else self.account.used_up
        return self.state is StudyState.STOPPING or used_up

    @contextlib.contextmanager
    def _unless_over(self, rounds: int | None = None) -> Iterator[None]:
        """Want of clients interrupts a study, unless it is over meanwhile: then it only ends what was under way.

        Raises:
            StoppedError: The study is over.
        """
        try:
            yield
        except UnavailableError as error:
            if self._over(rounds):
                raise StoppedError(error.message) from error
            raise

    def _why_over(self) -> str:
        return narrate.WAS_STOPPED if self.state is StudyState.STOPPING else narrate.USED_UP

    # conclude -------------------------------------------------------------------------------------------------------

    async def _conclude(self) -> None:
        best = self.best()
        stopped = self.state is StudyState.STOPPING
        if best is None:
            why = "nobody asked anything of its runs within tuner.close_after, and " if self.tuner.left_alone else ""
            await self.commits.end(
                StudyState.STOPPED if stopped else StudyState.FAILED,
                f"{why}no trial came to a value, so there is no model"
                + (_last_reason(self.trials) or self._nobody_measures()),
            )
            return
        run = await self._runs.resume(best)
        self.trials[best.number] = best = replace(best, details={**best.details, "delivered": True})
        missing = self.spec.budget.rounds_per_trial + self.spec.budget.final_rounds - run.rounds
        if self.tuner.inner.per_trial and best.state is TrialState.COMPLETED and missing > 0 and not self._over():
            await self.commits.announce(narrate.final_rounds(best, missing))
            try:
                run = await self._train_on(run, missing)
            finally:
                self.engine.end(run.trial)
            self._check_pause()
        run = await self._best_final(run)
        state = StudyState.STOPPED if self.state is StudyState.STOPPING else StudyState.COMPLETED
        shares = await shares_in(self.spec.name, self.engine.eligible.names(), self._parts)
        trials = list(self.trials.values())
        result = await conclusion.measure(self.spec, self._task, run, self.trials[run.trial], self._parts)
        await self.tuner.ask(self.tuner.inner.concluded, narrate.delivery(best, run.rounds, result))
        await self.commits.settle()
        result = await conclusion.write(self.spec, result, run.trial, trials, shares, self._parts, state)
        lag = self._parts.lag
        event = narrate.study_ended(state.value, self.trials[best.number], result, lag.percentile_ms(0.99), lag.max_ms)
        delivered = self.trials[best.number]
        events = [participation(shares), event]
        await self.commits.make(Change(trials=[delivered], state=state, result=result, events=events), state)

    def _nobody_measures(self) -> str:
        here = self.engine.eligible.count()
        if not here or self.engine.cohorts.evaluators():
            return ""
        return (
            f"; none of the {here} clients that are here has a sample to measure on: have the task keep some of each "
            "client's data for that (ClientData.validation)"
        )

    async def _train_on(self, run: Run, rounds: int) -> Run:
        """The final rounds of the best trial's model, as many as there is time for."""
        arm = arm_of(self.trials[run.trial])
        with contextlib.suppress(StoppedError), self._unless_over():
            for left in reversed(range(rounds)):
                outcome = (
                    StepOutcome(run)
                    if self.pausing or self._over()
                    else await self.engine.step(run, arm, last=not left)
                )
                if outcome.record is None:
                    break
                self.account.spend(outcome.due)
                trial = self.trials[run.trial]
                details = final_rounds.noted(self.spec, trial, outcome)
                await to_its_end(self._commit_round(run, outcome, trial.state, details=details))
                run = outcome.run
        return run

    async def _best_final(self, run: Run) -> Run:
        """Of the final rounds the best one's run; the last where it is the best, or there were none."""
        last = self.trials[run.trial]
        best = final_rounds.as_delivered(last)
        if best is last:
            return run
        await self.commits.announce(narrate.best_final_round(self.spec, last))
        load = self._parts.executors.compute.run
        return await load(checkpoint.load, self.spec, self._task, best, self._parts.blobs)


def _last_reason(trials: dict[int, TrialRecord]) -> str:
    reasons = [trial.message for trial in trials.values() if trial.message]
    return f"; the last one ended because {reasons[-1]}" if reasons else ""
