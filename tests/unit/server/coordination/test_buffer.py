"""The buffer of an arm: filled by updates of any round, closed at K or by its own timer; on a virtual clock."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from unit.server.coordination.phase_kit import MANIFEST, Clients

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.spec import GuardPolicy
from fedstep.server.aggregation.mean import WeightedMean
from fedstep.server.coordination.buffer import Buffer
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.intake import Intake, discount
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.coordination.shelf import Cut, Shelf
from fedstep.server.tuning.base import Cost
from fedstep.simulation.inline import InlineExecutor
from fedstep.simulation.virtual_loop import run_virtual
from fedstep.v1 import fleet_pb2 as pb

STEPS = 10
MAX_STALENESS = 2


class Arm:
    """An arm that keeps all clients at work that have not failed it, each time under a new id."""

    def __init__(self, clients: Clients, places: int) -> None:
        self.clients = clients
        self.places = places
        self.shelf = Shelf()
        self.intake = Intake(WeightedMean(2), InlineExecutor(), 100.0, MAX_STALENESS, damped=True)
        self.buffer = Buffer(clients.ledger, self.shelf, self.intake, MAX_STALENESS, self.refill)
        self.begun = 0
        self._put()

    def refill(self) -> None:
        free = [m for m in self.clients.members.values() if not m.busy and m.name not in self.buffer.failed]
        for member in free[: self.places - len(self.buffer.open)]:
            self.begun += 1
            message = pb.Assignment(
                ref=pb.AssignmentRef(assignment_id=f"s/{self.begun}", attempt=1),
                work=pb.WORK_TRAIN,
                round=self.intake.round,
                model_sha256=self.model(),
            )
            assignment = OpenAssignment(
                message=message,
                member=member,
                owner=self.buffer,
                update_bytes=MANIFEST.update_bytes,
                sent_at=asyncio.get_running_loop().time(),
                deadline_s=100.0,
                weights_norm=1.0,
                guard=LossGuard(GuardPolicy()),
                plan=LocalPlan(STEPS, STEPS),
            )
            self.buffer.begin([assignment])

    def model(self, round: int | None = None) -> bytes:
        return b"%d" % (self.intake.round if round is None else round)

    def _put(self) -> None:
        self.shelf.put(Cut(b"", ()), MANIFEST, self.model())

    def filling(self, wanted: int, deadline_s: float = 10.0) -> "asyncio.Task[None]":
        return asyncio.create_task(self.buffer.fill(wanted, deadline_s, self.places))

    def of(self, name: str) -> OpenAssignment:
        """What a client works on."""
        return next(a for a in self.buffer.open if a.member.name == name)

    async def push(self, assignment: OpenAssignment, value: float = 1.0) -> Exception | None:
        return await self.clients.push(assignment, (value, value), STEPS)

    def aggregate(self) -> float:
        """Makes the next model, and takes the one before off the shelf; answers with the mean's first element."""
        self.buffer.close()
        before, mean = self.model(), float(self.intake.finish()[0])
        self._put()
        self.shelf.drop(before)
        self.buffer.next_round()
        return mean

    async def round(self, *names: str) -> float:
        """A buffer of these clients' updates of 1."""
        filling = self.filling(len(names))
        await asyncio.sleep(0)
        for name in names:
            assert await self.push(self.of(name)) is None
        await filling
        mean = self.aggregate()
        await asyncio.sleep(0)
        return mean


def run(script: Callable[[Arm], Coroutine[Any, Any, None]], *names: str, places: int = 0) -> None:
    async def main() -> None:
        clients = Clients()
        await clients.join(*names)
        await script(Arm(clients, places or len(names)))

    run_virtual(main())


def test_it_is_over_at_so_many_updates_and_nobody_is_told_to_stop() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(2)
        await asyncio.sleep(0)
        slow = arm.of("c")
        await arm.push(arm.of("a"))
        assert not filling.done()
        await arm.push(arm.of("b"))
        await filling
        assert [a.member.name for a in arm.buffer.trained(1, 1).accepted] == ["a", "b"]
        assert arm.aggregate() == 1.0
        assert slow.status is Status.OPEN
        assert arm.clients.told("c") == []

    run(script, "a", "b", "c")


def test_a_place_that_is_free_is_given_out_at_once_with_the_newest_model() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(2)
        await asyncio.sleep(0)
        first = arm.of("a")
        await arm.push(first)
        await asyncio.sleep(0)
        assert arm.of("a") is not first
        assert arm.of("a").message.round == 0
        await arm.push(arm.of("a"))
        await filling
        assert "a" not in [a.member.name for a in arm.buffer.open]  # it waits for the model that is being made
        arm.aggregate()
        await asyncio.sleep(0)
        assert (arm.of("a").message.round, arm.of("b").message.round) == (1, 0)

    run(script, "a", "b")


def test_the_mean_of_stale_updates_is_divided_by_their_number_and_so_a_smaller_step() -> None:
    async def script(arm: Arm) -> None:
        assert await arm.round("a") == 1.0
        assert await arm.round("a") == 1.0
        assert await arm.round("b", "a") == pytest.approx((discount(2) + 1) / 2)

    run(script, "a", "b")


def test_what_each_of_them_adds_is_on_record_with_its_staleness() -> None:
    async def script(arm: Arm) -> None:
        await arm.round("a")
        filling = arm.filling(2)
        await asyncio.sleep(0)
        await arm.push(arm.of("b"))
        await arm.push(arm.of("a"))
        await filling
        trained = arm.buffer.trained(1, 1)
        assert [a.metrics.get("staleness") for a in trained.accepted] == [1.0, None]
        assert trained.staleness == 0.5

    run(script, "a", "b")


def test_its_own_timer_ends_it() -> None:
    async def script(arm: Arm) -> None:
        began_s = asyncio.get_running_loop().time()
        filling = arm.filling(2, deadline_s=7.0)
        await asyncio.sleep(0)
        await arm.push(arm.of("a"))
        await filling
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(7.0)
        assert arm.buffer.taken == 1
        assert arm.clients.told("b") == []

    run(script, "a", "b", places=2)


def test_an_update_that_comes_when_it_is_over_goes_into_the_next_one() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(1)
        await asyncio.sleep(0)
        b = arm.of("b")
        await arm.push(arm.of("a"))
        pushing = asyncio.create_task(arm.push(b, 3.0))
        await filling
        assert [a.member.name for a in arm.buffer.trained(1, 1).accepted] == ["a"]
        assert arm.aggregate() == 1.0
        assert await pushing is None
        assert (b.status, b.metrics["staleness"]) == (Status.ACCEPTED, 1.0)
        await arm.filling(1)
        assert arm.aggregate() == pytest.approx(3.0 * discount(1))

    run(script, "a", "b")


def test_while_a_model_is_measured_the_next_buffer_fills_and_once_it_is_full_nobody_begins_anew() -> None:
    async def script(arm: Arm) -> None:
        await arm.round("a")
        for name in ("a", "b", "c"):
            await arm.push(arm.of(name))
            await asyncio.sleep(0)
        assert not arm.buffer.open
        filling = arm.filling(1)
        await filling
        assert len(arm.buffer.trained(1, 1).accepted) == 3
        assert arm.aggregate() == pytest.approx((1 + 2 * discount(1)) / 3)
        await asyncio.sleep(0)
        assert len(arm.buffer.open) == 3

    run(script, "a", "b", "c")


def test_what_may_not_get_staler_sends_what_it_has_and_what_did_is_called_off() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(1)
        await asyncio.sleep(0)
        b = arm.of("b")
        await arm.push(arm.of("a"))
        await filling
        arm.aggregate()
        for round in range(1, MAX_STALENESS + 1):
            assert bool(b.told) == (round == MAX_STALENESS)
            await arm.round("a")
        assert [d.kind for d in arm.clients.told("b")] == [
            pb.DIRECTIVE_KIND_STOP_AND_SEND,
            pb.DIRECTIVE_KIND_ABANDON,
        ]
        assert b.status is Status.LATE
        assert isinstance(await arm.push(b), PreconditionError)
        assert arm.of("b").message.round == MAX_STALENESS + 1

    run(script, "a", "b")


def test_who_let_it_down_is_not_asked_again_before_the_next_one() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(1)
        await asyncio.sleep(0)
        assert isinstance(await arm.push(arm.of("a"), math.nan), InvalidInputError)
        await asyncio.sleep(0)
        assert [a.member.name for a in arm.buffer.open] == ["b"]
        await arm.push(arm.of("b"))
        await filling
        arm.aggregate()
        await asyncio.sleep(0)
        assert {a.member.name for a in arm.buffer.open} == {"a", "b"}

    run(script, "a", "b")


def test_it_is_over_when_as_many_have_failed_as_were_at_work() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(2)
        for _ in range(arm.places):
            await asyncio.sleep(0)
            outcome = pb.Outcome(ref=next(iter(arm.buffer.open)).ref, status=pb.OUTCOME_STATUS_FAILED, message="why")
            arm.clients.ledger.outcome(next(iter(arm.buffer.open)).member, outcome)
        await filling
        assert arm.begun == 3
        assert [a.note for a in arm.buffer.trained(1, 1).faults] == ["why", "why"]

    run(script, "a", "b", "c", "d", places=2)


def test_too_few_updates_stay_in_it_and_what_took_too_long_gives_its_place_up() -> None:
    async def script(arm: Arm) -> None:
        began_s = asyncio.get_running_loop().time()
        filling = arm.filling(2)
        await asyncio.sleep(1.0)
        slow = arm.of("b")
        await arm.push(arm.of("a"))
        await asyncio.sleep(0)
        newer = arm.of("a")
        await filling
        arm.buffer.go_on(began_s)
        assert (slow.status, newer.status) == (Status.LATE, Status.OPEN)
        filling = arm.filling(2)
        await arm.push(newer)
        await filling
        assert [a.member.name for a in arm.buffer.trained(2, 1).accepted] == ["a", "a"]

    run(script, "a", "b")


def test_when_the_arm_is_over_all_work_is_called_off() -> None:
    async def script(arm: Arm) -> None:
        await arm.round("a")
        work = arm.buffer.call_off("its trial is over")
        assert {a.member.name for a in work} == {"a", "b"}
        assert all(a.status is Status.ABANDONED and not a.member.busy and not a.member.faults for a in work)
        assert [d.kind for d in arm.clients.told("b")] == [pb.DIRECTIVE_KIND_ABANDON]
        assert isinstance(await arm.push(work[0]), PreconditionError)
        await asyncio.sleep(0)
        assert not arm.buffer.open

    run(script, "a", "b")


def test_an_update_that_waits_for_the_next_buffer_of_an_arm_that_is_over_is_told_so() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(1)
        await asyncio.sleep(0)
        b = arm.of("b")
        await arm.push(arm.of("a"))
        pushing = asyncio.create_task(arm.push(b))
        await filling
        arm.buffer.call_off("its trial is over")
        assert isinstance(await pushing, PreconditionError)

    run(script, "a", "b")


def test_a_model_stays_on_the_shelf_until_who_was_sent_it_has_it() -> None:
    async def script(arm: Arm) -> None:
        filling = arm.filling(1)
        await asyncio.sleep(0)
        b = arm.of("b")
        await arm.push(arm.of("a"))
        await filling
        arm.aggregate()
        assert arm.shelf.get(arm.model(0))  # b may not have it yet
        arm.clients.report(b, 0, 0.1)
        await arm.round("a")
        with pytest.raises(Exception, match="No model"):
            arm.shelf.get(arm.model(0))
        await arm.push(b)
        assert b.status is Status.ACCEPTED

    run(script, "a", "b")


def test_all_that_is_sent_and_all_that_comes_is_counted_once() -> None:
    async def script(arm: Arm) -> None:
        await arm.round("a")
        model, update = MANIFEST.payload_bytes, MANIFEST.update_bytes
        assert arm.buffer.drain_cost() == Cost(0, 3, 3 * model + update, update_bytes=update)  # a, b, and a again
        assert arm.buffer.drain_cost() == Cost()

    run(script, "a", "b")
