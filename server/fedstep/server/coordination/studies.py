"""All studies of a coordinator: created, found, resumed, stopped."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence, Set
from dataclasses import dataclass
from typing import Any

from fedstep.common.errors import AlreadyExistsError, FieldViolation, StorageError
from fedstep.common.logs import concerning
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.validation import one_of
from fedstep.server.coordination.checks import check_parts
from fedstep.server.coordination.costs import cost_so_far
from fedstep.server.coordination.needed import needed_models
from fedstep.server.coordination.participants import shares_in, there_at_its_end
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.pausing import ask_pause, ask_resume, commit_paused
from fedstep.server.coordination.structure import check_structure
from fedstep.server.coordination.study import StudyRunner
from fedstep.server.report.cost import StudyCost
from fedstep.server.report.participation import Share
from fedstep.server.storage.base import Change, NewEvent, StudyRecord, StudyState, TrialRecord, all_studies, all_trials
from fedstep.server.tuning.ranking import best_trial

log = logging.getLogger(__name__)

TAKEN_UP_AFTER_S = (1.0, 5.0, 20.0, 60.0, 60.0)
"""Waits before a study that the database has failed is taken up again: so often without a round between, no more."""


STANDING_STILL = frozenset({StudyState.PAUSING, StudyState.PAUSED})
"""States that a study leaves only when somebody says so."""


@dataclass(frozen=True)
class StudyView:
    """A study as it stands now, for whoever asks."""

    record: StudyRecord
    trials: Sequence[TrialRecord]
    best: TrialRecord | None


class Studies:
    """The coordinator's studies.

    Args:
        tasks: The tasks it may run, by name: built-in ones and those it was started with. A study names one of
            them; no request makes the coordinator load code.
        parts: What studies work with.
    """

    def __init__(self, tasks: dict[str, Task], parts: Parts) -> None:
        self._tasks = tasks
        self._parts = parts
        self._runners: dict[str, StudyRunner] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._side_work: set[asyncio.Task[None]] = set()
        self._at_rest: dict[str, set[bytes]] = {}
        """Of each study that is not running, or has not begun yet, the models of its result or to go on from."""
        self._draining = False
        parts.ledger.when_fault(self.announce_soon)

    async def resume_all(self) -> list[str]:
        """Goes on with every study that has not ended; answers with their names."""
        resumed = []
        records = await self._parts.executors.storage.run(all_studies, self._parts.store)
        for record in records:  # of all, before the first one runs and tidies up
            self._at_rest[record.spec.name] = await self._needed(record)
        for record in records:
            if record.state is StudyState.PAUSING:  # its coordinator went away before the rounds under way were over
                await self._commit_paused(record.spec.name)
            if record.state.ended or record.state in STANDING_STILL:
                continue
            if record.spec.task not in self._tasks:
                await self._put_off(record)
                continue
            self._launch(record)
            resumed.append(record.spec.name)
        return resumed

    async def _needed(self, record: StudyRecord) -> set[bytes]:
        """The models of a study that is not running: of its result, or of what it would go on from."""
        if record.result is not None:
            return {record.result.model_sha256}
        trials = await self._parts.executors.storage.run(all_trials, self._parts.store, record.spec.name)
        return needed_models(record.spec, trials, set(record.tuner_state.get("keeps", ())))

    async def _put_off(self, record: StudyRecord) -> None:
        """A study whose task this coordinator was not given waits for one that was."""
        name = record.spec.name
        text = (
            f"this coordinator has no task {record.spec.task}: start it again with --task and the task's file, "
            "and the study goes on"
        )
        event = NewEvent("study_interrupted", f"Study {name} is interrupted: {text}.")
        change = Change(state=StudyState.INTERRUPTED, message=text, events=[event])
        await self._parts.executors.storage.run(self._parts.store.commit, name, change)
        log.warning("study %s is interrupted: %s", name, text, extra={"fields": {"study": name}})

    async def create(self, spec: StudySpec) -> StudyRecord:
        """A new study, running; or the one there is, when it is the same.

        Raises:
            InvalidInputError: The specification cannot be run here; each violation names its field.
            AlreadyExistsError: Another study has the name.
        """
        check_parts(spec, self._tasks.get(spec.task), self._task_faults(spec.task))
        await self._parts.executors.compute.run(check_structure, spec, self._tasks[spec.task])
        try:
            record = await self._parts.executors.storage.run(self._parts.store.create_study, spec)
        except AlreadyExistsError:
            record = await self.record(spec.name)
            if record.spec != spec:
                raise AlreadyExistsError(
                    f"A study named {spec.name} exists with other settings ({record.state.value}): change `name` in "
                    "the study file, or its settings back."
                ) from None
        if not record.state.ended and record.state not in STANDING_STILL and spec.name not in self._running:
            self._launch(record)
        return record

    def _task_faults(self, task: str) -> list[FieldViolation]:
        if task in self._tasks:
            return []
        text = (
            f"the coordinator has no task {task!r}: {one_of(task, sorted(self._tasks))} "
            "A task of one's own is given to it with `fedstep coordinator --task FILE`."
        )
        return [FieldViolation("task", text)]

    async def record(self, name: str) -> StudyRecord:
        """A study as the store has it.

        Raises:
            NotFoundError: There is none of that name.
        """
        return await self._parts.executors.storage.run(self._parts.store.study, name)

    async def view(self, name: str) -> StudyView:
        """A study with its trials.

        Raises:
            NotFoundError: There is none of that name.
        """
        record = await self.record(name)
        trials = await self._parts.executors.storage.run(all_trials, self._parts.store, name)
        return StudyView(record, trials, best_trial(record.spec, trials))

    async def participation(self, name: str) -> list[Share]:
        """Every client's part in a study so far, by name.

        Raises:
            NotFoundError: There is none of that name.
        """
        runner = self._runners.get(name)
        if runner is not None:
            return await shares_in(name, runner.engine.eligible.names(), self._parts)
        return await shares_in(name, await there_at_its_end(name, self._parts), self._parts)

    async def cost(self, name: str) -> StudyCost:
        """What a study has cost so far.

        Raises:
            NotFoundError: There is none of that name.
        """
        view, runner = await self.view(name), self._runners.get(name)
        ended_with = [trial for trial in view.trials if trial.details.get("delivered")]
        would = runner.best() if runner is not None and runner.begun else view.best
        delivered = ended_with[-1] if ended_with else would
        return await cost_so_far(view.record, delivered.number if delivered else None, self._parts)

    async def stop(self, name: str) -> StudyRecord:
        """Ends a study after the rounds under way; one that has ended stays as it is.

        Raises:
            NotFoundError: There is none of that name.
        """
        record = await self.record(name)
        if record.state.ended:
            return record
        change = Change(state=StudyState.STOPPING, events=[NewEvent("study_stopping", f"Study {name} is stopping.")])
        if record.spec.task not in self._tasks:  # nothing of it runs, and nothing can
            change = Change(state=StudyState.STOPPED, events=[NewEvent("study_stopped", f"Study {name} is stopped.")])
        await self._parts.feed.commit(name, lambda: self._parts.store.commit(name, change))
        if record.spec.task in self._tasks and (runner := await self._whoever_runs(name)) is not None:
            await runner.stop()
        return await self.record(name)

    def runner(self, name: str) -> StudyRunner | None:
        """What runs a study at this moment; None where nothing does."""
        return self._runners.get(name)

    async def pause(self, name: str) -> StudyRecord:
        """Has a study stand still after the rounds under way; one that does already stays as it is.

        Raises:
            NotFoundError: There is none of that name.
            PreconditionError: It has ended, or is stopping.
        """
        await self._parts.feed.commit(name, lambda: ask_pause(self._parts.store, name))
        if self._is_run(name):
            await self._runners[name].pause()
        else:  # nothing of it is under way
            await self._commit_paused(name)
        return await self.record(name)

    async def resume(self, name: str) -> StudyRecord:
        """Goes on with a study that stands still, or is interrupted; one that runs stays as it is.

        Raises:
            NotFoundError: There is none of that name.
            PreconditionError: It has ended, or its task is not here.
        """
        await self._parts.executors.storage.run(ask_resume, self._parts.store, name, self._tasks)
        await self._whoever_runs(name)
        return await self.record(name)

    async def _commit_paused(self, name: str) -> None:
        await self._parts.feed.commit(name, lambda: commit_paused(self._parts.store, name))

    def _is_run(self, name: str) -> bool:
        """Whether somebody runs the study, and will see what was committed to it."""
        return name in self._running and not self._running[name].done()

    async def _whoever_runs(self, name: str) -> StudyRunner | None:
        """What runs a study, from now on where nothing did; None where it has ended."""
        while True:
            record = await self.record(name)
            if record.state.ended:
                return None
            if self._is_run(name):
                return self._runners[name]
            if name not in self._running:
                self._launch(record)
                return self._runners[name]
            await asyncio.sleep(0)  # what ran it is over, and about to be taken off

    def under_way(self, name: str) -> bool:
        """Whether the study is being run: more events will come."""
        return name in self._running

    def announce_soon(self, study: str, event: NewEvent) -> None:
        """Commits an event to a study that is running, without waiting for it."""
        runner = self._runners.get(study)
        if runner is None or len(self._side_work) > 1000:
            return
        self._beside(self._announce(study, runner, event))

    async def _announce(self, study: str, runner: StudyRunner, event: NewEvent) -> None:
        try:
            await runner.commits.announce(event)
        except StorageError as error:  # the study itself meets the same with its next round, and waits or ends
            log.warning("an event is lost (%s): %s", event.text, error, extra={"fields": {"study": study}})

    @property
    def draining(self) -> bool:
        """Whether the coordinator is going away: what is interrupted now goes on when it is back."""
        return self._draining

    async def drain(self) -> list[str]:
        """Interrupts every running study, waits until each is committed, and answers with their names."""
        self._draining = True
        running = dict(self._running)
        for name, task in running.items():
            self._runners[name].leaving = True
            task.cancel()
        await asyncio.gather(*running.values(), *self._side_work, return_exceptions=True)
        return sorted(running)

    def _launch(self, record: StudyRecord) -> None:
        name = record.spec.name
        runner = self._runner(record)
        running = asyncio.get_running_loop().create_task(self._run(record, runner), name=f"study {name}")
        self._running[name] = running
        running.add_done_callback(lambda task: self._ended(name, task))

    def _runner(self, record: StudyRecord) -> StudyRunner:
        task = self._tasks[record.spec.task]
        runner = StudyRunner(record, task, self._parts, self._tidy, self.announce_soon)
        self._runners[record.spec.name] = runner
        return runner

    async def _run(self, record: StudyRecord, runner: StudyRunner) -> None:
        """Runs a study, and takes it up again from its last commit where the database failed it and works again."""
        name, failures = record.spec.name, 0
        while True:
            with concerning(study=name):
                await runner.run(taken_up_again=failures < len(TAKEN_UP_AFTER_S))
            if not (runner.lost_storage or runner.pausing):
                return
            if runner.begun:
                self._at_rest[name] = runner.kept_models()
            if runner.lost_storage:
                before, record = record, await self._once_it_answers(name, TAKEN_UP_AFTER_S[failures])
                failures = failures + 1 if record.spent.rounds == before.spent.rounds else 0
            else:
                record = await self.record(name)
            if record.state is StudyState.PAUSING:
                await self._commit_paused(name)
                record = await self.record(name)
            given_up = record.state is StudyState.INTERRUPTED and not runner.lost_storage
            if record.state.ended or record.state is StudyState.PAUSED or given_up:
                return
            runner = self._runner(record)

    async def _once_it_answers(self, name: str, wait_s: float) -> StudyRecord:
        """The study as the store has it, after a wait; where the database is gone again, after more of them."""
        while True:
            await asyncio.sleep(wait_s)
            try:
                return await self.record(name)
            except StorageError as error:
                told = {"fields": {"study": name}}
                log.warning("study %s cannot be taken up again yet: %s", name, error, extra=told)
                wait_s = TAKEN_UP_AFTER_S[-1]

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:  # not even its end could be committed
            log.error("study %s ended: %s", name, task.exception(), extra={"fields": {"study": name}})
        runner = self._runners.pop(name)
        self._running.pop(name, None)
        if runner.begun:
            self._at_rest[name] = runner.kept_models()
        self._parts.feed.publish(name, [])
        if runner.state.ended and not self._draining:
            self._beside(self._lay_to_rest(name))

    async def _lay_to_rest(self, name: str) -> None:
        """Removes what a study needed to go on, and its result does not need."""
        try:
            self._at_rest[name] = await self._needed(await self.record(name))
            await self._tidy(None)
        except StorageError as error:  # what is left goes with the next study's
            told = {"fields": {"study": name}}
            log.warning("the models of study %s cannot be tidied up yet: %s", name, error, extra=told)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done that nobody waits for before the coordinator goes away."""
        task = asyncio.get_running_loop().create_task(work)
        self._side_work.add(task)
        task.add_done_callback(self._side_work.discard)

    async def _tidy(self, among: Set[bytes] | None) -> None:
        """Removes model files that neither a running study nor a result needs: among these digests, or all."""
        blobs = self._parts.blobs
        with blobs.hold():  # what is committed from here on
            keep = self._needed_now() | blobs.held()  # what is being committed now
            if among is None:
                await self._parts.executors.files.run(blobs.retain, keep)
            elif gone := among - keep:
                await self._parts.executors.files.run(blobs.remove, gone)

    def _needed_now(self) -> set[bytes]:
        """The models that any study needs: one that has begun says so itself."""
        begun = {name: runner for name, runner in self._runners.items() if runner.begun}
        resting = (digests for name, digests in self._at_rest.items() if name not in begun)
        return set().union(*resting, *(runner.kept_models() for runner in begun.values()))

    async def page(self, after: str, limit: int) -> list[StudyRecord]:
        """Studies by name, from the first one after a name on."""
        return await self._parts.executors.storage.run(self._parts.store.studies, after, limit)
