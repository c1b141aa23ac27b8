"""What a simulated client says, and when: told by a coordinator's own fleet and ledger."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import torch
from unit.simulation.kit import Clouds

from fedstep.common import hyperparameters as hp
from fedstep.common.spec import GuardPolicy
from fedstep.common.tensors import Manifest, pack, sha256
from fedstep.server.coordination.fleet import Fleet, LeasePolicy, Member
from fedstep.server.coordination.guard import LossGuard
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.plan import LocalPlan
from fedstep.server.coordination.shelf import Shelf, cut
from fedstep.simulation.clients import SimulatedClient
from fedstep.simulation.crew import LocalCrew
from fedstep.simulation.population import Population
from fedstep.simulation.post import Post
from fedstep.simulation.speed import Pace
from fedstep.simulation.virtual_loop import VirtualClock, run_virtual
from fedstep.simulation.workshop import Workshop
from fedstep.v1 import fleet_pb2

PACE = Pace(step_ms=1000, sample_ms=0, bytes_per_s=1000)
"""A second a step, a third to measure; the model below takes 0.236 s each way."""

CLIENT = 1
"""Has 12 samples: 3 steps of 4 an epoch."""


@dataclass
class Asked:
    """A phase of a round that writes down what comes, and when."""

    ledger: Ledger
    updates: list[tuple[float, torch.Tensor, fleet_pb2.TrainingSummary]] = field(default_factory=list)
    outcomes: list[tuple[float, fleet_pb2.Outcome]] = field(default_factory=list)
    settled: list[tuple[float, Status]] = field(default_factory=list)

    async def take_update(
        self, assignment: OpenAssignment, update: torch.Tensor, summary: fleet_pb2.TrainingSummary
    ) -> None:
        self.updates.append((asyncio.get_running_loop().time(), update.clone(), summary))
        self.ledger.close(assignment, Status.ACCEPTED)

    def take_outcome(self, assignment: OpenAssignment, outcome: fleet_pb2.Outcome) -> None:
        self.outcomes.append((asyncio.get_running_loop().time(), outcome))
        self.ledger.close(assignment, Status.ACCEPTED)

    def settle(self, assignment: OpenAssignment, status: Status, message: str) -> None:
        self.settled.append((asyncio.get_running_loop().time(), status))
        self.ledger.close(assignment, status, message)


class Host:
    """A fleet of one client, and a model for it."""

    def __init__(self) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        self.fleet = Fleet(clock, LeasePolicy(), [])
        self.ledger = Ledger(self.fleet, clock)
        self.shelf = Shelf()
        self.population = Population(Clouds(), 3)
        torch.manual_seed(0)
        state = Clouds().build_model({"width": 7}).state_dict()
        self.manifest = Manifest.of(state)
        payload = pack(state, self.manifest)
        self.digest = sha256(payload)
        self.shelf.put(cut(payload), self.manifest, self.digest)
        self.phase = Asked(self.ledger)
        self.client = SimulatedClient(
            CLIENT,
            self.population.roster,
            PACE,
            workshop=Workshop(LocalCrew(self.population, vectorised=True)),
            post=Post(self.shelf),
            fleet=self.fleet,
            ledger=self.ledger,
        )

    def ask(self, member: Member, name: str = "a", **changes: Any) -> OpenAssignment:
        fields = {"work": fleet_pb2.WORK_TRAIN, "model_sha256": self.digest, "seed": 3, "hyperparameters": {}} | changes
        fields["hyperparameters"] = hp.map_to_proto(fields["hyperparameters"])
        message = fleet_pb2.Assignment(ref=fleet_pb2.AssignmentRef(assignment_id=name, attempt=1), study="s", **fields)
        guard = LossGuard(GuardPolicy(window=2))
        assignment = OpenAssignment(
            message, member, self.phase, self.manifest.update_bytes, 0.0, 60.0, guard, LocalPlan(6, 6)
        )
        self.ledger.open(assignment)
        return assignment

    def direct(self, member: Member, kind: fleet_pb2.DirectiveKind.ValueType, name: str = "a") -> None:
        ref = fleet_pb2.AssignmentRef(assignment_id=name, attempt=1)
        self.fleet.send(member, fleet_pb2.ConnectResponse(directive=fleet_pb2.Directive(ref=ref, kind=kind)))


def hosted(script: Callable[[Host, Member], Coroutine[Any, Any, None]]) -> Host:
    """Runs a script against one client for a virtual minute."""

    async def main() -> Host:
        host = Host()
        member = await host.client.join("clouds")
        serving = asyncio.create_task(host.client.serve(member))
        await script(host, member)
        await asyncio.sleep(60)
        host.fleet.drain("over")
        await serving
        return host

    return run_virtual(main())


FETCH_S = 4 * 59 / 1000
"""59 parameters."""


def test_training_takes_the_time_of_the_transfers_and_of_every_step() -> None:
    async def script(host: Host, member: Member) -> None:
        assignment = host.ask(member)
        await asyncio.sleep(FETCH_S + 5.9)
        assert not assignment.log.loss
        await asyncio.sleep(0.2)
        assert len(assignment.log.loss) == 6
        assert list(assignment.log.samples) == [4] * 6
        assert list(assignment.log.step_ms) == [1000] * 6

    host = hosted(script)
    ((at_s, update, summary),) = host.phase.updates
    assert at_s == pytest.approx(6 + 2 * FETCH_S)
    assert update.numel() == 59
    assert (summary.samples, summary.steps) == (12, 6)
    assert summary.train_time.ToNanoseconds() == pytest.approx(6e9)


def test_a_measurement_is_answered_after_its_time() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, work=fleet_pb2.WORK_EVALUATE)

    ((at_s, outcome),) = hosted(script).phase.outcomes
    assert at_s == pytest.approx(FETCH_S + 1 / 3)
    assert outcome.status == fleet_pb2.OUTCOME_STATUS_COMPLETED
    assert (set(outcome.metrics), outcome.samples) == ({"loss", "accuracy"}, 4)


def test_a_model_that_is_there_is_not_fetched_again_and_trainings_take_turns() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, "a")
        host.ask(member, "b")

    first, second = (at_s for at_s, *_ in hosted(script).phase.updates)
    assert second - first == pytest.approx(6)


def test_an_abandoned_training_sends_nothing_and_the_client_is_free_at_once() -> None:
    async def script(host: Host, member: Member) -> None:
        assignment = host.ask(member)
        await asyncio.sleep(2)
        host.ledger.dismiss(assignment, Status.ABANDONED, "enough")
        await asyncio.sleep(0)
        host.ask(member, "b", max_steps=1)

    host = hosted(script)
    ((at_s, _, summary),) = host.phase.updates
    assert summary.steps == 1
    assert at_s == pytest.approx(3 + FETCH_S)


def test_told_to_stop_and_send_it_ends_its_step_and_sends_what_it_has() -> None:
    async def whole(host: Host, member: Member) -> None:
        host.ask(member, max_steps=3)

    async def script(host: Host, member: Member) -> None:
        host.ask(member)
        await asyncio.sleep(FETCH_S + 2.5)
        host.direct(member, fleet_pb2.DIRECTIVE_KIND_STOP_AND_SEND)

    ((at_s, update, summary),) = hosted(script).phase.updates
    ((_, wanted, _),) = hosted(whole).phase.updates
    assert summary.steps == 3
    assert at_s == pytest.approx(3 + 2 * FETCH_S)
    assert torch.equal(update, wanted)


def test_told_to_stop_before_its_first_step_it_has_nothing_to_send() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member)
        await asyncio.sleep(FETCH_S / 2)
        host.direct(member, fleet_pb2.DIRECTIVE_KIND_STOP_AND_SEND)

    host = hosted(script)
    assert not host.phase.updates
    ((at_s, outcome),) = host.phase.outcomes
    assert at_s == pytest.approx(FETCH_S / 2)
    assert outcome.status == fleet_pb2.OUTCOME_STATUS_ABANDONED


def test_steps_are_told_a_few_times_in_the_time_that_is_left() -> None:
    """Every second step here: often enough to see when it will be done."""

    async def script(host: Host, member: Member) -> None:
        assignment = host.ask(member, time_left=timedelta(seconds=80), hyperparameters={"local_epochs": 7})
        seen = []
        for _ in range(22):
            await asyncio.sleep(1)
            seen.append(len(assignment.log.loss))
        assert seen == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14, 16, 16, 18, 18, 20, 21]

    hosted(script)


def test_a_loss_that_rises_is_told_step_by_step_so_that_the_guard_can_stop_it() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, hyperparameters={"lr": 60.0, "local_epochs": 10})

    host = hosted(script)
    ((at_s, status),) = host.phase.settled
    assert status is Status.DIVERGED
    assert at_s < FETCH_S + 30
    assert not host.phase.updates


def test_where_only_reports_are_wanted_no_update_is_sent() -> None:
    async def script(host: Host, member: Member) -> None:
        assignment = host.ask(member, report_only=True)
        await asyncio.sleep(20)
        assert len(assignment.log.loss) == 6

    host = hosted(script)
    ((at_s, outcome),) = host.phase.outcomes
    assert not host.phase.updates
    assert at_s == pytest.approx(FETCH_S + 6)
    assert (outcome.status, outcome.samples) == (fleet_pb2.OUTCOME_STATUS_COMPLETED, 12)


def test_losses_on_the_validation_set_are_told_where_asked_for() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, local_validation=True)

    ((_, _, summary),) = hosted(script).phase.updates
    assert summary.validation_loss_after < summary.validation_loss_before


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"hyperparameters": {"lr": -1.0}}, fleet_pb2.OUTCOME_STATUS_REFUSED, "lr"),
        ({"model_sha256": b"?" * 32}, fleet_pb2.OUTCOME_STATUS_FAILED, "No model"),
        ({"hyperparameters": {"width": 9}}, fleet_pb2.OUTCOME_STATUS_REFUSED, "model"),
    ],
)
def test_what_cannot_be_done_is_answered_with_the_reason(
    changes: dict[str, Any], status: fleet_pb2.OutcomeStatus.ValueType, said: str
) -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, **changes)

    ((_, outcome),) = hosted(script).phase.outcomes
    assert outcome.status == status
    assert said in outcome.message
