"""Late updates: taken once, at a discount, into the model of the arm they were made for; on a virtual clock."""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest
from unit.server.coordination.phase_kit import Clients

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.aggregation.mean import WeightedMean
from fedstep.server.coordination.intake import MAX_STALENESS, Intake, discount
from fedstep.server.coordination.late import LateUpdates
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.simulation.inline import InlineExecutor
from fedstep.simulation.virtual_loop import run_virtual
from fedstep.v1 import fleet_pb2 as pb


class Arm:
    """An arm whose rounds have a deadline of ten seconds; "good" is always in time with an update of zeros."""

    def __init__(self, clients: Clients) -> None:
        self.clients = clients
        self.intake = Intake(WeightedMean(2), InlineExecutor(), 100.0)
        self.late = LateUpdates(clients.ledger, self.intake)
        self.round = 0

    async def collect(
        self, quorum: int = 1, wanted: int = 0, unhurried: Collection[str] = (), newcomers: Collection[str] = ()
    ) -> dict[str, OpenAssignment]:
        """Trains a round to its end, without making the next model; it waits for all unless fewer are wanted."""
        self.late.begin_round(self.round)
        count = wanted or sum(not member.busy for member in self.clients.members.values())
        spared = {"unhurried": unhurried, "newcomers": newcomers}
        phase = self.clients.phase(count, 10.0, intake=self.intake, late=self.late, quorum=quorum, **spared)
        work = self.clients.begin(phase, steps=10, round=self.round)
        await self.clients.push(work["good"], (0.0, 0.0), 10)
        await phase.wait()
        return work

    def aggregate(self) -> float:
        """Makes the next model; answers with the mean's first element."""
        self.round += 1
        return float(self.intake.finish()[0])


def run(script: Callable[[Arm], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        clients = Clients()
        await clients.join("good", "slow")
        await script(Arm(clients))

    run_virtual(main())


def test_an_update_after_the_deadline_goes_into_the_next_round_at_a_discount() -> None:
    async def script(arm: Arm) -> None:
        work = await arm.collect()
        slow = work["slow"]
        assert (slow.status, slow.standing, slow.member.busy, slow.member.late) == (
            Status.OPEN,
            Status.LATE,
            slow.ref.assignment_id,
            True,
        )
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_STOP_AND_SEND]
        assert arm.aggregate() == 0.0
        assert await arm.clients.push(slow, (1.0, 1.0), 10) is None
        assert slow.status is Status.ACCEPTED
        assert (slow.member.busy, slow.member.late) == ("", False)
        await arm.collect()
        weight = 1 / math.sqrt(2)
        assert arm.aggregate() == pytest.approx(weight / (1 + weight))
        (taken,) = arm.intake.drain_late()
        assert (taken.client, taken.made_in, taken.taken_in, taken.staleness) == ("slow", 0, 1, 1)

    run(script)


@pytest.mark.parametrize("wanted", [1, 2], ids=["updates", "deadline"])
def test_the_end_of_a_round_does_not_stop_who_is_unhurried(wanted: int) -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(wanted=wanted, unhurried={"slow"}))["slow"]
        assert (slow.standing, slow.member.late, arm.clients.told("slow")) == (Status.GOES_ON, True, [])
        assert slow.deadline_s == (1 + MAX_STALENESS) * 10.0
        arm.aggregate()
        assert await arm.clients.push(slow, (1.0, 1.0), 10) is None
        await arm.collect()
        assert arm.aggregate() > 0.0
        assert slow.member.faults == 0

    run(script)


def test_a_round_of_unknown_clients_ends_where_only_those_are_left_who_go_on() -> None:
    async def script(arm: Arm) -> None:
        options = {"intake": arm.intake, "late": arm.late, "unhurried": {"slow"}, "open_end": True}
        phase = arm.clients.phase(2, 1000.0, **options)
        work = arm.clients.begin(phase, steps=10)
        waiting = asyncio.create_task(phase.wait())
        await arm.clients.train(work["good"], 0.1)
        await waiting
        assert arm.clients.now_s() < 2.0
        assert work["slow"].standing is Status.GOES_ON
        assert [(e.kind, e.details["clients"]) for e in phase.events] == [("clients_go_on", ["slow"])]

    run(script)


def test_a_round_that_has_its_updates_stops_those_who_are_not() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(wanted=1))["slow"]
        assert slow.standing is Status.ABANDONED
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_ABANDON]

    run(script)


def test_a_newcomer_sends_what_it_has_when_others_were_faster() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(wanted=1, newcomers={"slow"}))["slow"]
        assert slow.standing is Status.LATE
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_STOP_AND_SEND]
        arm.aggregate()
        assert await arm.clients.push(slow, (1.0, 1.0), 1) is None
        await arm.collect()
        assert arm.aggregate() > 0.0

    run(script)


@pytest.mark.parametrize("staleness", [1, 2, MAX_STALENESS])
def test_its_weight_falls_with_its_staleness(staleness: int) -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        for _ in range(staleness - 1):
            arm.aggregate()
            await arm.collect()
        arm.aggregate()
        arm.late.begin_round(arm.round)
        await arm.clients.push(slow, (1.0, 1.0), 10)
        await arm.collect()
        weight = 1 / math.sqrt(1 + staleness)
        assert arm.aggregate() == pytest.approx(weight / (1 + weight))

    run(script)


def test_whose_work_would_be_too_old_after_this_round_sends_what_it_has() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(unhurried=["slow"]))["slow"]
        for _ in range(MAX_STALENESS - 1):
            arm.aggregate()
            await arm.collect()
        assert arm.clients.told("slow") == []
        arm.aggregate()
        arm.late.begin_round(arm.round)
        arm.late.begin_round(arm.round)  # once, also where the round is tried again
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_STOP_AND_SEND]
        assert await arm.clients.push(slow, (1.0, 1.0), 4) is None
        assert [late.staleness for late in arm.intake.drain_late()] == [MAX_STALENESS]

    run(script)


def test_partial_late_work_counts_by_its_steps_as_well() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.aggregate()
        await arm.clients.push(slow, (1.0, 1.0), 5)
        await arm.collect()
        weight = 0.5 * discount(1)
        share = weight / (1 + weight)
        assert arm.aggregate() == pytest.approx((1 - share + share * 0.5) * share * 1.0 / 0.5)

    run(script)


def test_past_the_bound_it_is_dropped_and_its_client_told_and_free() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        for _ in range(MAX_STALENESS):
            arm.aggregate()
            assert slow.status is Status.OPEN
            await arm.collect()
        arm.aggregate()
        arm.clients.told("slow")
        arm.late.begin_round(arm.round)
        assert slow.status is Status.LATE
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_ABANDON]
        assert not slow.member.busy
        assert isinstance(await arm.clients.push(slow, (1.0, 1.0), 10), PreconditionError)
        assert arm.intake.drain_late() == []

    run(script)


def test_it_is_taken_once() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.aggregate()
        assert await arm.clients.push(slow, (1.0, 1.0), 10) is None
        assert isinstance(await arm.clients.push(slow, (1.0, 1.0), 10), PreconditionError)
        assert len(arm.intake.drain_late()) == 1

    run(script)


def test_its_client_is_not_asked_again_before_it_is_done() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.aggregate()
        assert (await arm.collect()).keys() == {"good"}
        await arm.clients.push(slow, (1.0, 1.0), 10)
        arm.aggregate()
        assert (await arm.collect()).keys() == {"good", "slow"}

    run(script)


def test_a_round_below_its_quorum_leaves_nothing_behind() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(quorum=2))["slow"]
        assert slow.status is Status.LATE
        assert not slow.member.busy
        assert isinstance(await arm.clients.push(slow, (1.0, 1.0), 10), PreconditionError)
        arm.intake.start_again(WeightedMean(2), 0)
        with pytest.raises(ValueError, match="no update"):
            arm.aggregate()

    run(script)


def test_an_arm_that_is_over_takes_nothing_and_its_clients_are_told() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.clients.told("slow")
        arm.late.call_off("its trial is over")
        assert (slow.status, slow.member.faults) == (Status.LATE, 1)
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_ABANDON]
        assert isinstance(await arm.clients.push(slow, (1.0, 1.0), 10), PreconditionError)

    run(script)


def test_only_who_is_named_is_freed() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.late.free(["good"], "its client is asked again")
        assert slow.member.busy
        arm.late.free(["slow"], "its client is asked again")
        assert not slow.member.busy
        assert (await arm.collect()).keys() == {"good", "slow"}

    run(script)


def test_what_is_wrong_with_a_late_update_is_refused_as_in_time() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.aggregate()
        assert isinstance(await arm.clients.push(slow, (math.nan, 1.0), 10), InvalidInputError)
        assert slow.status is Status.REFUSED
        assert not slow.member.busy
        assert arm.intake.drain_late() == []

    run(script)


def test_a_client_that_says_that_nothing_comes_is_free() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        outcome = pb.Outcome(ref=slow.ref, status=pb.OUTCOME_STATUS_ABANDONED, message="told to stop")
        arm.clients.ledger.outcome(slow.member, outcome)
        assert slow.status is Status.LATE
        assert not slow.member.busy

    run(script)


def test_a_client_that_is_lost_is_lost() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.clients.ledger._lose(slow.member)
        assert slow.status is Status.LOST
        (told,) = arm.late.drain_events()
        assert (told.kind, told.details["client"], told.details["round"]) == ("client_lost", "slow", 0)
        assert told.text.startswith("slow in round 0 of trial 0: late training lost, slow was not heard of for ")
        assert arm.late.drain_events() == []

    run(script)


def test_in_the_arms_last_round_all_that_is_out_is_sent_as_it_is() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect(unhurried=["slow"]))["slow"]
        arm.aggregate()
        arm.late.begin_round(arm.round)
        assert arm.clients.told("slow") == []
        arm.late.begin_round(arm.round, last=True)
        assert [d.kind for d in arm.clients.told("slow")] == [pb.DIRECTIVE_KIND_STOP_AND_SEND]
        assert await arm.clients.push(slow, (1.0, 1.0), 4) is None
        assert [(late.staleness, late.part) for late in arm.intake.drain_late()] == [(1, 0.4)]

    run(script)


def test_its_steps_are_kept_no_more_but_a_runaway_loss_is_still_seen() -> None:
    async def script(arm: Arm) -> None:
        slow = (await arm.collect())["slow"]
        arm.clients.report(slow, 0, 0.1, count=5)
        assert len(slow.log.loss) == 0
        report = pb.StepReport(ref=slow.ref, first_step=5, loss=[math.nan], samples=[1], step_ms=[1.0])
        arm.clients.ledger.report(slow.member, report)
        assert slow.status is Status.DIVERGED
        assert not slow.member.busy

    run(script)


def test_an_update_that_waits_for_its_turn_at_the_deadline_is_late_and_not_lost() -> None:
    async def script(arm: Arm) -> None:
        arm.late.begin_round(0)
        phase = arm.clients.phase(2, 10.0, intake=arm.intake, late=arm.late)
        work = arm.clients.begin(phase, steps=10)
        waiting = asyncio.create_task(phase.wait())
        await arm.clients.push(work["good"], (0.0, 0.0), 10)
        await arm.intake.turn.acquire()  # another update's
        await asyncio.sleep(9.0)
        pushing = asyncio.create_task(arm.clients.push(work["slow"], (1.0, 1.0), 10))
        await asyncio.sleep(1.2)
        arm.intake.turn.release()
        await waiting
        assert await pushing is None
        assert work["slow"].status is Status.ACCEPTED
        assert work["slow"].late

    run(script)
