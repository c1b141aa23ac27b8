"""Clients in the coordinator's own process: they do what their assignments say, and take their virtual time for it."""

import asyncio
import math
from bisect import bisect_left, bisect_right
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

from fedstep.client.answers import ended_by, measured, reported, summary_of
from fedstep.client.work import AbandonedError, Job, Trained
from fedstep.common.durations import seconds_of
from fedstep.common.errors import FedstepError, InvalidInputError, PreconditionError
from fedstep.common.handicap import UNHINDERED, Handicap
from fedstep.common.version import VERSION
from fedstep.server.coordination.fleet import Fetch, Fleet, Member
from fedstep.server.coordination.ledger import MAX_STEPS_A_REPORT, Ledger
from fedstep.server.coordination.projection import REPORTS
from fedstep.simulation.local import Order, Training
from fedstep.simulation.population import Roster
from fedstep.simulation.post import Post
from fedstep.simulation.speed import Pace
from fedstep.simulation.workshop import Workshop
from fedstep.v1 import fleet_pb2

_NOTABLE_RISE = 1.5
_NOTABLE_MARGIN = 1.0
"""A loss that exceeds the first one by this factor and this margin is told step by step, as it happens."""

_REPORTS = 2 * REPORTS
"""In the time that is left, which may be twice a round's deadline."""

_NEAR_S = 1e-5
"""A timer may ring so much before its time."""


@dataclass
class _Active:
    """An assignment under way.

    Attributes:
        task: Carries it out.
        order: What is to be done; None before the model is there.
        ends_s: When each local step ends, by the loop's clock; empty before the training.
        begins_s: When the first one begins.
        told: Local steps reported.
        fetch_s: How long its model took to come.
    """

    assignment: fleet_pb2.Assignment
    task: asyncio.Task[None] | None = None
    order: Order | None = None
    begins_s: float = 0.0
    ends_s: Sequence[float] = field(default_factory=list)
    told: int = 0
    fetch_s: float = 0.0


class SimulatedClient:
    """One client. What it says goes where the message of a networked client would go.

    It trains one model at a time and measures one at a time, as a networked one does.

    Args:
        number: Its number in the roster.
        roster: All clients.
        pace: How fast it is.
        handicap: What holds it up.
        workshop: What computes for it.
        post: Where its models come from.
        fleet: What it joins.
        ledger: What it reports to.
    """

    def __init__(
        self,
        number: int,
        roster: Roster,
        pace: Pace,
        handicap: Handicap = UNHINDERED,
        *,
        workshop: Workshop,
        post: Post,
        fleet: Fleet,
        ledger: Ledger,
    ) -> None:
        self._number = number
        self._roster = roster
        self._pace = pace
        self._handicap = handicap
        self._workshop = workshop
        self._post = post
        self._fleet = fleet
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._active: dict[str, _Active] = {}
        self._free_at_s = {fleet_pb2.WORK_TRAIN: 0.0, fleet_pb2.WORK_EVALUATE: 0.0}
        self._held = b""  # the digest of its last model
        self._in_touch = asyncio.Event()
        self._hello = fleet_pb2.Hello()

    async def join(self, task: str) -> Member:
        """Joins the fleet, under the name that the study calls its task by. One that is away leaves it at once."""
        self._hello = fleet_pb2.Hello(
            client_name=self._roster.names[self._number],
            instance_id=f"simulated-{self._number}",
            version=VERSION,
            task=task,
            model=self._roster.manifest.to_proto(),
            train_samples=self._roster.train_samples[self._number],
            validation_samples=self._roster.validation_samples[self._number],
            device="simulated",
        )
        member = await self._fleet.join(self._hello)
        if self._leaves_s() <= self._loop.time():
            await self._fleet.left(member, member.stream)
        else:
            self._in_touch.set()
        return member

    async def serve(self, member: Member) -> None:
        """Does what it is told, until the coordinator ends the stream. In between it is away, and comes back."""
        async with asyncio.TaskGroup() as group:
            while not await self._listen(group, member):
                await self._be_away(member)
            for active in list(self._active.values()):
                self._drop(active)

    async def _listen(self, group: asyncio.TaskGroup, member: Member) -> bool:
        """Whether the stream has ended; else it is time to leave."""
        leaves_s = self._leaves_s()
        try:
            async with asyncio.timeout_at(None if math.isinf(leaves_s) else leaves_s):
                while (message := await member.outbox.get()) is not None:
                    match message.WhichOneof("message"):
                        case "assignment":
                            self._assign(group, member, message.assignment)
                        case "directive":
                            self._direct(group, member, message.directive)
        except TimeoutError:
            return False
        return True

    async def _be_away(self, member: Member) -> None:
        """Its network is gone: its work goes on, its lease runs out unless it is back before, and nobody hears of it.

        A networked client is heard of until then, by its heartbeats; so nobody has to look for leases that run out.
        """
        self._in_touch.clear()
        if member.streaming:
            self._fleet.heard(member)
            await self._fleet.left(member, member.stream)
        _, back_s = self._handicap.absences.at(self._loop.time())
        expires_s = member.heard_at + self._fleet.policy.lease.total_seconds()
        if expires_s < back_s:
            await self._sleep_until(expires_s)
            self._fleet.expire(member)
        await self._sleep_until(back_s)
        await self._fleet.join(self._hello)
        self._in_touch.set()
        self._ledger.reconcile(member, [active.assignment.ref for active in self._active.values()])

    def _leaves_s(self) -> float:
        """When it will be away next; in the past when it is."""
        return self._handicap.absences.at(self._loop.time())[0]

    # what it is told ----------------------------------------------------------------------------------------------

    def _assign(self, group: asyncio.TaskGroup, member: Member, assignment: fleet_pb2.Assignment) -> None:
        known = self._active.get(assignment.ref.assignment_id)
        if known is not None:
            if assignment.ref.attempt <= known.assignment.ref.attempt:
                return
            self._drop(known)
        active = self._active[assignment.ref.assignment_id] = _Active(assignment)
        self._start(group, active, self._carry_out(member, active))

    def _direct(self, group: asyncio.TaskGroup, member: Member, directive: fleet_pb2.Directive) -> None:
        """A change of plan. More time is nothing to a client that never gives up by itself."""
        active = self._active.get(directive.ref.assignment_id)
        if active is None or active.assignment.ref.attempt != directive.ref.attempt:
            return
        now = self._loop.time()
        if directive.kind == fleet_pb2.DIRECTIVE_KIND_ABANDON:
            self._drop(active)
        elif directive.kind == fleet_pb2.DIRECTIVE_KIND_STOP_AND_SEND:
            # The step under way is taken to its end.
            begun = 1 + bisect_left(active.ends_s, now) if now > active.begins_s else 0
            if not begun or active.order is None or not active.ends_s:
                self._drop(active)
                self._answer(member, active.assignment, ended_by(AbandonedError(directive.reason or "told to stop")))
            elif begun < len(active.ends_s):
                self._cut_short(group, member, active, active.order, begun)

    def _cut_short(self, group: asyncio.TaskGroup, member: Member, active: _Active, order: Order, steps: int) -> None:
        """Trains again, up to the step after which it was told to stop: what it has then is what it would have had."""
        self._drop(active)
        self._active[active.assignment.ref.assignment_id] = active
        training = self._workshop.train_alone(replace(order, job=replace(order.job, max_steps=steps)))
        active.ends_s = active.ends_s[:steps]
        self._free_at_s[fleet_pb2.WORK_TRAIN] = active.ends_s[-1]
        self._start(group, active, self._tell(member, active, training))

    def _start(self, group: asyncio.TaskGroup, active: _Active, work: Coroutine[Any, Any, None]) -> None:
        task = active.task = group.create_task(work)
        task.add_done_callback(lambda task: self._forget(active, task))

    def _forget(self, active: _Active, task: asyncio.Task[None]) -> None:
        key = active.assignment.ref.assignment_id
        if active.task is task and self._active.get(key) is active:
            del self._active[key]

    def _drop(self, active: _Active) -> None:
        """Stops work that nobody wants; the time it would have taken is free again."""
        self._active.pop(active.assignment.ref.assignment_id, None)
        self._free_at_s[active.assignment.work] = self._loop.time()
        if active.task is not None:
            active.task.cancel()

    # what it does -------------------------------------------------------------------------------------------------

    async def _carry_out(self, member: Member, active: _Active) -> None:
        assignment = active.assignment
        try:
            order, arrives_s = self._receive(member, assignment)
            active.order, active.fetch_s = order, arrives_s - self._loop.time()
        except FedstepError as error:
            self._answer(member, assignment, ended_by(error))
            return
        if assignment.work == fleet_pb2.WORK_EVALUATE:
            found = await self._workshop.measure(order)
            took_s = [self._pace.evaluation_s(self._roster.validation_samples[self._number])]
            await self._sleep_until(self._in_turn(active, arrives_s, took_s))
            await self._in_touch.wait()
            self._answer(member, assignment, ended_by(found) if isinstance(found, Exception) else measured(found))
        else:
            training = await self._workshop.train(order)
            self._in_turn(active, arrives_s, [self._pace.step_s(samples) for samples in training.samples])
            await self._tell(member, active, training)

    def _in_turn(self, active: _Active, arrives_s: float, took_s: Sequence[float]) -> float:
        """Puts the steps of some work after the model's arrival and after work of its kind; answers with its end."""
        kind = active.assignment.work
        active.begins_s = max(arrives_s, self._free_at_s[kind])
        active.ends_s = [self._handicap.worked_s(active.begins_s, spent) for spent in accumulate(took_s)]
        self._free_at_s[kind] = active.ends_s[-1] if active.ends_s else active.begins_s
        return self._free_at_s[kind]

    def _receive(self, member: Member, assignment: fleet_pb2.Assignment) -> tuple[Order, float]:
        """What is to be done, and when the model for it has arrived."""
        model = self._post.get(assignment.model_sha256)
        label = f"study {assignment.study}, trial {assignment.trial}, round {assignment.round}"
        values = self._post.hyperparameters(assignment)
        job = Job(label, model, values, assignment.seed, assignment.max_steps, assignment.local_validation)
        arrives_s = now_s = self._loop.time()
        if assignment.model_sha256 != self._held:
            size_bytes = model.manifest.payload_bytes
            arrives_s = self._moved_s(size_bytes)
            member.fetch = Fetch(assignment.model_sha256, size_bytes, arrives_s - now_s)
        self._held = assignment.model_sha256
        return Order(self._number, job), arrives_s

    def _moved_s(self, size_bytes: int) -> float:
        """When so many bytes have moved that begin to now."""
        return self._handicap.moved_s(self._loop.time(), size_bytes, self._pace.transfer_s(size_bytes))

    async def _tell(self, member: Member, active: _Active, training: Training) -> None:
        """Reports the steps when they have been taken, and then what came of them."""
        losses = training.losses
        if losses and not max(losses) <= max(_NOTABLE_RISE * losses[0], losses[0] + _NOTABLE_MARGIN):
            while active.told < len(losses):  # the coordinator may want to stop it
                await self._sleep_until(active.ends_s[active.told])
                await self._in_touch.wait()
                self._report(member, active, training, 1)
        elif losses:
            await self._report_as_they_end(member, active, training)
        await self._in_touch.wait()
        if training.trained is None:
            error = training.error or AbandonedError("told to stop before the first local step")
            self._answer(member, active.assignment, ended_by(error))
        elif active.assignment.report_only:
            self._answer(member, active.assignment, reported(training.trained))
        else:
            begins_s = self._loop.time()
            await self._sleep_until(self._moved_s(4 * training.trained.update.numel()))
            await self._in_touch.wait()
            await self._push(member, active, training.trained, self._loop.time() - begins_s)

    async def _report_as_they_end(self, member: Member, active: _Active, training: Training) -> None:
        """Now and then, and all that is left at the end: often enough for the coordinator to project the end."""
        every_s = seconds_of(active.assignment.time_left) / _REPORTS or math.inf
        ends_s = active.ends_s[: len(training.losses)]
        while active.told < len(ends_s):
            now = max(self._loop.time(), active.begins_s)
            await self._sleep_until(min(now + every_s, ends_s[-1]))
            await self._in_touch.wait()
            while active.told < (ended := bisect_right(ends_s, self._loop.time() + _NEAR_S)):
                self._report(member, active, training, min(ended - active.told, MAX_STEPS_A_REPORT))

    def _report(self, member: Member, active: _Active, training: Training, most: int) -> None:
        part = slice(active.told, active.told + most)
        edges_s = (active.begins_s, *active.ends_s)[active.told : active.told + most + 1]
        samples = training.samples[part]
        report = fleet_pb2.StepReport(
            ref=active.assignment.ref,
            first_step=active.told,
            loss=training.losses[part],
            samples=samples,
            step_ms=[1000 * (end - begin) for begin, end in pairwise(edges_s)],
        )
        active.told += len(samples)
        self._fleet.heard(member)
        self._ledger.report(member, report)

    def _answer(self, member: Member, assignment: fleet_pb2.Assignment, outcome: fleet_pb2.Outcome) -> None:
        outcome.ref.CopyFrom(assignment.ref)
        self._fleet.heard(member)
        self._ledger.outcome(member, outcome)

    async def _push(self, member: Member, active: _Active, trained: Trained, push_s: float) -> None:
        """Hands the update over, as `PushUpdate` does."""
        summary = summary_of(trained, active.ends_s[-1] - active.begins_s)
        self._fleet.heard(member)
        with (
            suppress(PreconditionError, InvalidInputError),  # too late, or refused: the ledger knows
            self._ledger.update_for(active.assignment.ref, member) as assignment,
        ):
            assignment.check_size(4 * trained.update.numel())
            assignment.fetch_s, assignment.push_s = active.fetch_s, push_s
            await assignment.owner.take_update(assignment, trained.update, summary)

    async def _sleep_until(self, time_s: float) -> None:
        await asyncio.sleep(max(0.0, time_s - self._loop.time()))
