"""What a client has been asked to do: one training and one evaluation at a time, the others waiting their turn."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar

from fedstep.client.answers import ended_by, measured, reported, summary_of
from fedstep.client.assignment import Active
from fedstep.client.events import ClientEvent, Listener
from fedstep.client.fetch import ModelCache
from fedstep.client.outbox import Outbox
from fedstep.client.push import Pushed, Update, UpdatePusher
from fedstep.client.reporter import Reporter
from fedstep.client.work import Evaluated, Job, Monotonic, Trained, Work
from fedstep.client.worker import WorkerThread
from fedstep.common.durations import duration_of, seconds_of
from fedstep.common.errors import FedstepError, InvalidInputError
from fedstep.common.hyperparameters import Value, map_from_proto
from fedstep.common.logs import concerning
from fedstep.common.raised import RAISED
from fedstep.common.tensors import checksum
from fedstep.v1 import fleet_pb2 as pb

MAX_ACTIVE = 16
"""Assignments a client takes at once; further ones are refused."""

_REMEMBERED = 64
_FLUSH_S = 0.5
_logger = logging.getLogger(__name__)
T = TypeVar("T")


class Workload:
    """All assignments of this client. Lives on the event loop and outlives its connections.

    An assignment that comes again is not done again; a newer attempt takes the place of an older one. Every one ends
    with an update that was pushed, or with an outcome in the outbox.
    """

    def __init__(
        self, work: Work, models: ModelCache, pusher: UpdatePusher, outbox: Outbox, listener: Listener, clock: Monotonic
    ) -> None:
        """Nothing to do yet.

        Args:
            work: What trains and evaluates.
            models: Where models come from.
            pusher: Where updates go.
            outbox: Where steps and outcomes go.
            listener: Is told what begins and how it ends.
            clock: Monotonic seconds.
        """
        self._work = work
        self._models = models
        self._pusher = pusher
        self._outbox = outbox
        self._listener = listener
        self._clock = clock
        self._training = WorkerThread("fedstep-train")
        self._evaluating = WorkerThread("fedstep-evaluate")
        self._active: dict[str, Active] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: OrderedDict[str, tuple[int, pb.Outcome | None]] = OrderedDict()
        self._closing = False

    def assign(self, assignment: pb.Assignment) -> None:
        """Takes an assignment on, unless it is known already, or this client is leaving."""
        ref = assignment.ref
        if self._closing:
            _logger.debug("%s comes while this client is stopping", ref.assignment_id)
            return
        active = self._active.get(ref.assignment_id)
        if active is not None and not active.silent:
            if ref.attempt <= active.ref.attempt:
                _logger.debug("%s attempt %d is being worked on", ref.assignment_id, ref.attempt)
                return
            active.silent = True
            active.abandon("a newer attempt took its place")
        ended_attempt, outcome = self._ended.get(ref.assignment_id, (-1, None))
        if ref.attempt <= ended_attempt:
            if outcome is not None and outcome.ref.attempt == ref.attempt:
                self._outbox.put(outcome)  # told before, and perhaps not heard
            return
        active = self._active[ref.assignment_id] = Active(assignment, self._clock)
        crowded = len(self._tasks) >= MAX_ACTIVE
        task = asyncio.create_task(self._run(active, crowded), name=f"assignment {ref.assignment_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def direct(self, directive: pb.Directive) -> None:
        """Changes the plan for work under way; it holds from the next local step on."""
        active = self._active.get(directive.ref.assignment_id)
        if active is None or active.ref.attempt != directive.ref.attempt:
            _logger.debug("a directive for %s, which is not under way", directive.ref.assignment_id)
            return
        match directive.kind:
            case pb.DIRECTIVE_KIND_ABANDON:
                active.abandon(directive.reason)
            case pb.DIRECTIVE_KIND_STOP_AND_SEND:
                active.stop_and_send(directive.reason)
            case pb.DIRECTIVE_KIND_EXTEND:
                active.extend(seconds_of(directive.time_left))
            case _:
                pass

    def running(self) -> list[pb.AssignmentRef]:
        """What is being worked on."""
        return [active.ref for active in self._active.values() if not active.silent]

    def drop_all(self, reason: str, silent: bool) -> None:
        """Abandons everything.

        Args:
            reason: Why, for people.
            silent: Whether the coordinator is told nothing of it.
        """
        for active in self._active.values():
            active.silent |= silent
            active.abandon(reason)

    async def close(self, wait_s: float) -> bool:
        """Abandons everything and ends the threads; False when a local step did not end within `wait_s`."""
        self._closing = True
        self.drop_all("the client is stopping", silent=False)
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=wait_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._training.close()
        self._evaluating.close()
        return not (self._training.busy or self._evaluating.busy)

    async def _run(self, active: Active, crowded: bool) -> None:
        """One assignment from beginning to end, whatever happens, in a task of its own: its lines concern it alone."""
        study = active.ref.assignment_id.split("/", 1)[0]
        with concerning(study=study, trial=active.assignment.trial, round=active.assignment.round):
            await self._run_it(active, crowded)

    async def _run_it(self, active: Active, crowded: bool) -> None:
        try:
            if crowded:
                raise InvalidInputError(f"This client works on {MAX_ACTIVE} assignments already.")
            outcome = await self._carry_out(active)
        except RAISED as error:
            if not isinstance(error, FedstepError):
                _logger.debug("%s failed", active.label, exc_info=True)
            outcome = ended_by(error)
        finally:
            if self._active.get(active.ref.assignment_id) is active:
                del self._active[active.ref.assignment_id]
        if outcome is not None:
            outcome.ref.CopyFrom(active.ref)
            outcome.elapsed.CopyFrom(duration_of(active.elapsed_s))
        if active.silent:
            return
        self._ended[active.ref.assignment_id] = (active.ref.attempt, outcome)
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if outcome is not None:
            self._outbox.put(outcome)
            self._tell_outcome(active, outcome)

    async def _carry_out(self, active: Active) -> pb.Outcome | None:
        match active.assignment.work:
            case pb.WORK_TRAIN:
                return await self._train(active)
            case pb.WORK_EVALUATE:
                return await self._evaluate(active)
            case unknown:
                raise InvalidInputError(f"This client does not know work number {unknown}: install a newer fedstep.")

    async def _train(self, active: Active) -> pb.Outcome | None:
        """Fetch, train, tell the steps, push. The update is the answer: there is no outcome."""
        self._tell(active, "assignment", "training", {"work": "train"})
        job, fetch_time_s = await self._job(active)
        reporter = self._outbox.reporter(active.ref)
        try:
            trained, digest = await self._in_turn(active, self._training, lambda: self._trained(job, active, reporter))
        finally:
            await self._outbox.close(reporter, _FLUSH_S)
        if active.assignment.report_only:
            return reported(trained)
        summary = summary_of(trained, trained.train_time_s)
        summary.fetch_time.CopyFrom(duration_of(fetch_time_s))
        async with active.phase():
            pushed, why = await self._pusher.push(Update(active.ref, trained.update, digest, summary))
        if pushed is Pushed.REFUSED:
            _logger.warning("%s: the coordinator refused the update: %s", active.label, why)
            self._tell(active, "outcome", f"the update was refused: {why}", {"status": "refused", "message": why})
        elif pushed is Pushed.STALE:
            _logger.debug("%s: the update came too late: %s", active.label, why)
        else:
            text = f"{trained.steps} steps in {trained.train_time_s:.2g} s, loss {trained.loss:.4g}"
            details: dict[str, Value] = {"status": "sent", "steps": trained.steps, "loss": trained.loss}
            self._tell(active, "outcome", f"trained {text}", details)
        return None

    async def _evaluate(self, active: Active) -> pb.Outcome:
        """Fetch, measure, answer."""
        self._tell(active, "assignment", "evaluating", {"work": "evaluate"})
        job, _ = await self._job(active)
        result: Evaluated = await self._in_turn(
            active, self._evaluating, lambda: self._work.evaluate(job, active.control)
        )
        return measured(result)

    async def _job(self, active: Active) -> tuple[Job, float]:
        """The job with its model, and how many seconds the model took to come."""
        assignment = active.assignment
        asked_s = self._clock()
        async with active.phase():
            model = await self._models.get(assignment.model_sha256)
        try:
            hyperparameters = map_from_proto(assignment.hyperparameters)
        except ValueError as error:
            raise InvalidInputError(f"The assignment has {error}: install a newer fedstep here.") from error
        job = Job(
            active.label, model, hyperparameters, assignment.seed, assignment.max_steps, assignment.local_validation
        )
        return job, self._clock() - asked_s

    async def _in_turn(self, active: Active, worker: WorkerThread, work: Callable[[], T]) -> T:
        async with active.phase():
            await worker.turn.acquire()
        active.begun = True
        try:
            return await worker.run(work)
        finally:
            worker.turn.release()

    def _trained(self, job: Job, active: Active, reporter: Reporter) -> tuple[Trained, bytes]:
        """In the training thread: the result and its checksum, which is computed nowhere else."""
        trained = self._work.train(job, active.control, reporter)
        return trained, checksum(trained.update)

    def _tell_outcome(self, active: Active, outcome: pb.Outcome) -> None:
        status = pb.OutcomeStatus.Name(outcome.status).removeprefix("OUTCOME_STATUS_").lower()
        if outcome.status == pb.OUTCOME_STATUS_COMPLETED:
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(outcome.metrics.items()))
            text = f"evaluated on {outcome.samples} samples{': ' if metrics else ''}{metrics}"
        else:
            text = f"{status}: {outcome.message}"
        # The task names its metrics as it likes: what is fedstep's own comes after them, and stays.
        self._tell(active, "outcome", text, {**outcome.metrics, "status": status, "message": outcome.message})

    def _tell(self, active: Active, kind: str, text: str, details: Mapping[str, Value]) -> None:
        assignment = active.assignment
        about: dict[str, Value] = {"study": assignment.study, "trial": assignment.trial, "round": assignment.round}
        self._listener(ClientEvent(kind, f"{active.label}: {text}", {**details, **about}))
