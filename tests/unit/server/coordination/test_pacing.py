"""What the end of a training tells of a client's pace."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
from e2e.tiny import MANIFEST

from contract.store_kit import SetClock
from fedstep.common import hyperparameters as hp
from fedstep.common.spec import GuardPolicy
from fedstep.server.coordination.fleet import Fetch, Fleet, LeasePolicy, Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.pacing import PaceBook, steps_of
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.selection.pace import Known
from fedstep.server.storage.base import PaceRecord
from fedstep.v1 import fleet_pb2

DIGEST = b"d" * 32


class Owner:
    """Nobody asks it anything here."""

    async def take_update(self, assignment: OpenAssignment, update: torch.Tensor, summary: Any) -> None: ...

    def take_outcome(self, assignment: OpenAssignment, outcome: Any) -> None: ...

    def settle(self, assignment: OpenAssignment, status: Status, message: str) -> None: ...


class Host:
    """A fleet with a ledger and a book of paces."""

    def __init__(self, *history: PaceRecord) -> None:
        self.clock = SetClock()
        self.fleet = Fleet(self.clock, LeasePolicy(), [])
        self.ledger = Ledger(self.fleet, self.clock)
        self.paces = PaceBook(self.fleet, self.ledger, history)

    async def join(self, name: str = "a", task: str = "tiny") -> Member:
        hello = fleet_pb2.Hello(client_name=name, instance_id=name, task=task, train_samples=100)
        hello.model.CopyFrom(MANIFEST.to_proto())
        return await self.fleet.join(hello)

    def train(
        self, member: Member, seconds: float, status: Status, step_ms: list[float], **facts: Any
    ) -> OpenAssignment:
        values = {"batch_size": 10, "local_epochs": 2}
        message = fleet_pb2.Assignment(
            ref=fleet_pb2.AssignmentRef(assignment_id="x", attempt=1),
            work=facts.pop("work", fleet_pb2.WORK_TRAIN),
            model_sha256=DIGEST,
            hyperparameters=hp.map_to_proto(values),
            max_steps=facts.pop("max_steps", 0),
        )
        owner = Owner()
        guard = LossGuard(GuardPolicy())
        plan = LocalPlan.of(member.train_samples, values, message.max_steps)
        assignment = OpenAssignment(message, member, owner, 1_000_000, self.clock.monotonic(), 60.0, guard, plan)
        self.ledger.open(assignment)
        losses, samples = [1.0] * len(step_ms), [10] * len(step_ms)
        self.ledger.report(member, fleet_pb2.StepReport(ref=message.ref, loss=losses, samples=samples, step_ms=step_ms))
        for name, value in facts.items():
            setattr(assignment, name, value)
        self.clock.time += timedelta(seconds=seconds)
        self.ledger.close(assignment, status)
        return assignment

    def predicted_s(self, member: Member, steps: int = 20) -> float:
        found = self.paces.predict(np.array([member.row]), steps, 10, MANIFEST)
        return float(np.exp(found.log_time[0]))


async def test_an_update_tells_of_steps_and_transfers_and_what_else_there_was() -> None:
    host = Host()
    member = await host.join()
    member.fetch = Fetch(DIGEST, 2_000_000, 0.5)
    host.train(member, 6.0, Status.ACCEPTED, [100.0] * 20, fetch_s=1.0, push_s=2.0)
    known = host.paces.known("a")
    assert (known.batch_size, known.step_ms) == (10, pytest.approx(100.0)) or known.batch_size == 11
    assert known.download_bytes_per_s == pytest.approx(2e6)  # as the client says: its last byte came later
    assert known.upload_bytes_per_s == pytest.approx(5e5)
    assert host.paces.upload_s(member, 1_000_000) == pytest.approx(2.0, rel=0.2)
    assert host.paces.upload_s(await host.join("b"), 1_000_000) == 0.0
    assert host.predicted_s(member) > 2.0 + 1.0  # the steps, and the second that was neither
    assert [record.client for record in host.paces.unsaved()] == ["a"]
    assert host.paces.unsaved() == []


async def test_a_model_that_it_had_already_tells_nothing_of_its_connection() -> None:
    host = Host()
    member = await host.join()
    host.train(member, 6.0, Status.ACCEPTED, [100.0] * 20, fetch_s=0.00001, push_s=2.0)
    member.fetch = Fetch(b"another", 2_000_000, 0.5)
    host.train(member, 6.0, Status.ACCEPTED, [100.0] * 20, fetch_s=0.00001, push_s=2.0)
    member.fetch = Fetch(DIGEST, 200_000, 0.0001)  # to measure it, and small enough to lie in buffers
    host.train(member, 6.0, Status.ACCEPTED, [100.0] * 20, fetch_s=0.00001, push_s=2.0)
    assert host.paces.known("a").download_bytes_per_s == 0.0


@pytest.mark.parametrize("status", [Status.LATE, Status.ABANDONED, Status.LOST])
async def test_a_client_that_said_nothing_till_it_was_cut_off_is_slower_than_that(status: Status) -> None:
    host = Host()
    member = await host.join()
    host.train(member, 40.0, status, [])
    assert host.predicted_s(member) > 40.0
    before = host.predicted_s(member)
    host.train(member, before * 2, status, [])
    assert host.predicted_s(member) > before * 1.5


async def test_a_client_that_stood_still_is_slower_than_its_steps_say() -> None:
    host = Host()
    stood, went = await host.join("stood"), await host.join("went")
    host.train(stood, 60.0, Status.LATE, [100.0] * 5)
    host.train(went, 1.9, Status.ABANDONED, [100.0] * 19)
    assert host.paces.known("went").step_ms == pytest.approx(100.0)
    assert host.paces.known("stood").step_ms > 400.0
    host.train(stood, 60.0, Status.LATE, [100.0] * 5)
    assert host.paces.known("stood").step_ms > 1000.0  # believed by and by: once it may have been the connection


@pytest.mark.parametrize("status", [Status.ACCEPTED, Status.ABANDONED])
async def test_who_goes_on_after_its_round_is_known_by_the_steps_on_record(status: Status) -> None:
    host = Host()
    member = await host.join()
    host.train(member, 2.0, Status.ACCEPTED, [100.0] * 20)
    before = host.predicted_s(member)
    left_at = host.clock.monotonic() + 0.6
    host.train(member, 60.0, status, [100.0] * 5, left_as=Status.GOES_ON, left_at=left_at)
    assert host.paces.known("a").step_ms == pytest.approx(100.0)
    assert host.predicted_s(member) == pytest.approx(before, rel=0.001)


async def test_a_late_update_tells_of_the_steps_that_were_not_on_record() -> None:
    """A very slow client is cut off in its first step, round after round: else nobody would know how slow it is."""
    host = Host()
    member = await host.join()
    left_at = host.clock.monotonic() + 0.6
    late = {"left_as": Status.LATE, "left_at": left_at, "metrics": {"steps": 1.0}, "train_s": 3.0, "told": "late"}
    host.train(member, 4.0, Status.ACCEPTED, [], **late)
    assert host.paces.known("a").step_ms == pytest.approx(3000.0)
    assert host.predicted_s(member, steps=1) < 4.0  # the step is not counted as something else besides


async def test_measurements_and_refusals_tell_nothing_of_a_pace() -> None:
    host = Host()
    member = await host.join()
    host.train(member, 40.0, Status.LATE, [], work=fleet_pb2.WORK_EVALUATE)
    host.train(member, 40.0, Status.REFUSED, [])
    assert host.paces.known("a") == Known()


async def test_a_client_that_returns_with_another_task_starts_anew() -> None:
    first = Host()
    first.train(await first.join(), 6.0, Status.ACCEPTED, [100.0] * 20, push_s=2.0)
    kept = first.paces.unsaved()
    same, other = Host(*kept), Host(*kept)
    assert same.paces.known("a") == first.paces.known("a")  # before it comes
    await same.join()
    assert same.paces.known("a") == first.paces.known("a")
    await other.join(task="digits")
    assert other.paces.known("a").step_ms == 0.0
    assert other.paces.known("a").upload_bytes_per_s == pytest.approx(5e5)


async def test_what_could_not_be_saved_is_saved_the_next_time() -> None:
    host = Host()
    host.train(await host.join(), 6.0, Status.ACCEPTED, [100.0] * 20)
    learnt = host.paces.unsaved()
    host.paces.not_saved(learnt)
    assert host.paces.unsaved() == learnt


async def test_the_steps_planned_are_those_a_client_takes() -> None:
    host = Host()
    member = await host.join()
    assert host.train(member, 1.0, Status.ACCEPTED, []).plan.steps == 20
    assert host.train(member, 1.0, Status.ACCEPTED, [], max_steps=7).plan.steps == 7
    samples, values = np.array([1, 10, 11, 100]), {"batch_size": 10, "local_epochs": 2}
    assert steps_of(samples, values, 0).tolist() == [2, 2, 4, 20]
    assert steps_of(samples, values, 3).tolist() == [2, 2, 3, 3]


async def test_what_a_download_took_is_no_step() -> None:
    host = Host()
    member = await host.join()
    for _ in range(4):
        host.train(member, 2.5, Status.ACCEPTED, [100.0] * 20)
    for _ in range(4):
        member.fetch = Fetch(DIGEST, 2_000_000, 9.0)
        host.train(member, 10.05, Status.ABANDONED, [100.0] * 10)
    assert host.paces.known("a").step_ms < 300.0


async def test_who_was_told_to_stop_takes_no_slower_steps_for_it() -> None:
    host = Host()
    member = await host.join()
    host.train(member, 2.5, Status.ACCEPTED, [100.0] * 20)
    before, at = host.paces.known("a").step_ms, host.clock.monotonic()
    host.train(member, 60.0, Status.LATE, [100.0] * 10, told="too late", told_at=at + 1.05)
    assert host.paces.known("a").step_ms == pytest.approx(before)


async def test_who_was_told_to_send_and_sends_nothing_is_in_its_first_step() -> None:
    host = Host()
    member, at = await host.join(), host.clock.monotonic()
    host.train(member, 20.0, Status.LATE, [], told="enough", told_at=at + 5.0)
    assert host.paces.known("a").step_ms > 10_000


async def test_one_stall_moves_a_well_known_client_little_whatever_it_shows_in() -> None:
    """A step that took long, or one that was not done when it was cut off."""
    host = Host()
    cut_off, stalled = await host.join("cut off"), await host.join("stalled")
    for member in (cut_off, stalled):
        for number in range(13):
            host.train(member, 0.1, Status.ACCEPTED, [0.1 * 8 ** (number % 3)] * 20)
    before = host.paces.known("stalled").step_ms
    host.train(cut_off, 3.0, Status.LATE, [])
    host.train(stalled, 3.0, Status.ACCEPTED, [3000.0])
    assert before < host.paces.known("stalled").step_ms < 5 * before
    assert before < host.paces.known("cut off").step_ms < 5 * before
