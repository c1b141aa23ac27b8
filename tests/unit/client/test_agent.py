"""A whole agent against a coordinator over real sockets."""

import asyncio

import grpc
import pytest
import torch
from unit.client.fake_coordinator import FakeCoordinator, eventually
from unit.client.work_kit import QUICK, STATE, SteppedWork, assignment, running_agent

from fedstep.client.agent import Agent, Profile
from fedstep.client.events import ClientEvent
from fedstep.client.work import Evaluated
from fedstep.common.errors import AlreadyExistsError, ForbiddenError, InvalidInputError, UnauthenticatedError
from fedstep.common.tensors import Manifest
from fedstep.common.version import VERSION
from fedstep.v1 import fleet_pb2 as pb


@pytest.fixture
def work() -> SteppedWork:
    return SteppedWork()


@pytest.fixture
def digest(coordinator: FakeCoordinator) -> bytes:
    return coordinator.store(STATE)


async def test_hello_says_who_it_is(coordinator: FakeCoordinator, work: SteppedWork) -> None:
    async with running_agent(coordinator, work):
        await eventually(lambda: coordinator.hellos)
    hello = coordinator.hellos[0]
    assert (hello.client_name, hello.task, hello.version) == ("ann", "numbers", VERSION)
    assert (hello.train_samples, hello.validation_samples, hello.device) == (12, 9, "cpu")
    assert Manifest.from_proto(hello.model) == Manifest.of(STATE)
    assert hello.instance_id


async def test_training_ends_in_an_update_after_its_steps(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, max_steps=5))
        work.allow(5)
        await eventually(lambda: coordinator.accepted)
        assert coordinator.steps_of("a") == [0, 1, 2, 3, 4]  # told before the update was
        assert coordinator.outcomes == []
    [(header, data)] = coordinator.accepted
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=torch.float32), STATE["w"])
    assert (header.summary.samples, header.summary.steps, header.summary.loss) == (12, 5, 0.5)
    assert header.summary.train_time.ToMilliseconds() == 250


async def test_a_training_whose_update_nobody_wants_ends_in_an_outcome(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    message = assignment(digest, max_steps=3)
    message.report_only = True
    async with running_agent(coordinator, work):
        coordinator.assign(message)
        work.allow(3)
        await eventually(lambda: coordinator.outcomes)
        assert coordinator.steps_of("a") == [0, 1, 2]  # told before
    [outcome] = coordinator.outcomes
    assert outcome.status == pb.OUTCOME_STATUS_COMPLETED
    assert (dict(outcome.metrics), outcome.samples) == ({"loss": 0.5}, 12)
    assert coordinator.accepted == []


async def test_evaluation_ends_in_an_outcome(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, work=pb.WORK_EVALUATE))
        await eventually(lambda: coordinator.outcomes)
    [outcome] = coordinator.outcomes
    assert outcome.status == pb.OUTCOME_STATUS_COMPLETED
    assert dict(outcome.metrics) == {"loss": 0.25}
    assert outcome.samples == 9


async def test_a_task_may_name_its_metrics_as_it_likes(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["status", "message", "text", "kind", "study"]
    monkeypatch.setattr(work, "evaluate", lambda job, control: Evaluated(dict.fromkeys(names, 0.5), 9))
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        coordinator.assign(assignment(digest, work=pb.WORK_EVALUATE))
        await eventually(lambda: any(event.kind == "outcome" for event in events))
        await eventually(lambda: coordinator.outcomes)
    assert sorted(coordinator.outcomes[0].metrics) == sorted(names)
    [told] = [event.details for event in events if event.kind == "outcome"]
    assert (told["status"], told["study"]) == ("completed", "s")


async def test_an_evaluation_does_not_wait_for_a_training(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, "a"))
        await eventually(lambda: work.trainings)
        coordinator.assign(assignment(digest, "b", work=pb.WORK_EVALUATE))
        await eventually(lambda: coordinator.outcomes)
        assert coordinator.outcomes[0].ref.assignment_id == "b"
        assert work.ended == 0


async def test_heartbeats_go_on_while_it_trains(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    coordinator.welcome.heartbeat_interval.FromMilliseconds(10)
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest))
        await eventually(lambda: work.trainings)
        before = coordinator.heartbeats
        await eventually(lambda: coordinator.heartbeats >= before + 3)
        assert work.ended == 0


async def test_abandon_holds_from_the_next_step_on(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest))
        work.allow(3)
        await eventually(lambda: len(coordinator.steps_of("a")) == 3)
        coordinator.direct(pb.AssignmentRef(assignment_id="a", attempt=1), pb.DIRECTIVE_KIND_ABANDON, "pruned")
        await eventually(lambda: coordinator.outcomes)
    [outcome] = coordinator.outcomes
    assert (outcome.status, outcome.message) == (pb.OUTCOME_STATUS_ABANDONED, "pruned")
    assert work.steps_taken == 3
    assert coordinator.push_headers == []


async def test_stop_and_send_pushes_what_there_is(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest))
        work.allow(3)
        await eventually(lambda: len(coordinator.steps_of("a")) == 3)
        coordinator.direct(pb.AssignmentRef(assignment_id="a", attempt=1), pb.DIRECTIVE_KIND_STOP_AND_SEND)
        await eventually(lambda: coordinator.accepted)
    assert coordinator.accepted[0][0].summary.steps == 3


async def test_abandon_ends_a_fetch(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    coordinator.hold_fetches.clear()
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest))
        await eventually(lambda: coordinator.fetches)
        coordinator.direct(pb.AssignmentRef(assignment_id="a", attempt=1), pb.DIRECTIVE_KIND_ABANDON)
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_ABANDONED
    assert work.trainings == 0
    coordinator.hold_fetches.set()


async def test_work_ends_at_its_deadline(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    async with running_agent(coordinator, work):
        soon = assignment(digest)
        soon.time_left.FromMilliseconds(50)
        coordinator.assign(soon)
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_ABANDONED
    assert "out of time" in coordinator.outcomes[0].message


async def test_work_that_waits_its_turn_ends_at_its_deadline(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, "first"))
        await eventually(lambda: work.trainings)
        soon = assignment(digest, "second")
        soon.time_left.FromMilliseconds(50)
        coordinator.assign(soon)
        await eventually(lambda: coordinator.outcomes)
        assert coordinator.outcomes[0].ref.assignment_id == "second"
        assert work.trainings == 1


async def test_extend_moves_the_deadline(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    coordinator.hold_fetches.clear()
    async with running_agent(coordinator, work):
        short = assignment(digest, max_steps=1, time_left_s=1)
        coordinator.assign(short)
        await eventually(lambda: coordinator.fetches)
        directive = pb.Directive(ref=short.ref, kind=pb.DIRECTIVE_KIND_EXTEND)
        directive.time_left.FromSeconds(60)
        coordinator.say(pb.ConnectResponse(directive=directive))
        coordinator.say(pb.ConnectResponse(assignment=assignment(digest, "marker", time_left_s=1)))
        await eventually(lambda: coordinator.outcomes)  # the marker's time is up; it came after the extension
        coordinator.hold_fetches.set()
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
        assert [outcome.ref.assignment_id for outcome in coordinator.outcomes] == ["marker"]


async def test_a_repeated_assignment_is_done_once(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, max_steps=1))
        coordinator.assign(assignment(digest, max_steps=1))
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
        coordinator.assign(assignment(digest, max_steps=1))
        coordinator.assign(assignment(digest, "after", work=pb.WORK_EVALUATE))
        await eventually(lambda: coordinator.outcomes)
    assert work.trainings == 1
    assert len(coordinator.accepted) == 1


async def test_a_repeated_evaluation_is_answered_again(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, work=pb.WORK_EVALUATE))
        await eventually(lambda: len(coordinator.outcomes) == 1)
        coordinator.assign(assignment(digest, work=pb.WORK_EVALUATE))
        await eventually(lambda: len(coordinator.outcomes) == 2)
    assert work.evaluations == 1
    assert coordinator.outcomes[0] == coordinator.outcomes[1]


async def test_a_newer_attempt_takes_the_place_of_an_older_one(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, attempt=1, max_steps=1))
        await eventually(lambda: work.trainings)
        coordinator.assign(assignment(digest, attempt=2, max_steps=1))
        await eventually(lambda: work.ended == 1)
        coordinator.assign(assignment(digest, attempt=1, max_steps=1))  # stale: ignored
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
        assert coordinator.outcomes == []
    assert [header.ref.attempt for header, _ in coordinator.accepted] == [2]
    assert work.trainings == 2


async def test_a_model_is_fetched_once_for_several_assignments(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        for number in range(3):
            coordinator.assign(assignment(digest, str(number), work=pb.WORK_EVALUATE))
        await eventually(lambda: len(coordinator.outcomes) == 3)
    assert len(coordinator.fetches) == 1


async def test_training_goes_on_across_a_reconnect(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        coordinator.assign(assignment(digest, max_steps=6))
        work.allow(2)
        await eventually(lambda: len(coordinator.steps_of("a")) == 2)
        await coordinator.stop()
        await eventually(lambda: events[-1].kind == "disconnected")
        work.allow(3)
        await eventually(lambda: work.steps_taken == 5)
        await coordinator.start()
        await eventually(lambda: len(coordinator.hellos) == 2)
        assert [ref.assignment_id for ref in coordinator.hellos[1].running] == ["a"]
        await eventually(lambda: coordinator.steps_of("a") == [0, 1, 2, 3, 4])
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
        assert coordinator.hellos[0].instance_id == coordinator.hellos[1].instance_id
    assert work.trainings == 1
    assert [event.kind for event in events if event.kind in ("connected", "disconnected")] == [
        "connected",
        "disconnected",
        "connected",
    ]
    assert any(event.text.startswith("connected again after") for event in events)


async def test_an_update_made_while_out_of_touch_is_pushed_afterwards(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, max_steps=2))
        await eventually(lambda: work.trainings)
        await coordinator.stop()
        work.allow(2)
        await eventually(lambda: work.ended)
        await coordinator.start()
        await eventually(lambda: coordinator.accepted)
    assert coordinator.accepted[0][0].session_id == "session-2"


async def test_an_outcome_that_a_cut_may_have_swallowed_is_told_again(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, work=pb.WORK_EVALUATE))
        await eventually(lambda: len(coordinator.outcomes) == 1)
        coordinator.cut_stream()
        await eventually(lambda: len(coordinator.outcomes) == 2)
        assert [ref.assignment_id for ref in coordinator.hellos[1].running] == ["a"]


async def test_it_says_once_that_nobody_takes_it(coordinator: FakeCoordinator, work: SteppedWork) -> None:
    coordinator.refuse = (grpc.StatusCode.UNAVAILABLE, "starting")
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        await eventually(lambda: len(coordinator.hellos) >= 3)
        coordinator.refuse = None
        await eventually(lambda: events[-1].kind == "connected")
        assert [event.kind for event in events] == ["disconnected", "connected"]
    assert coordinator.address in events[0].text


async def test_it_waits_for_a_coordinator_that_is_not_there_yet(
    coordinator: FakeCoordinator, work: SteppedWork
) -> None:
    await coordinator.stop()
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        await eventually(lambda: events)
        await coordinator.start()
        await eventually(lambda: coordinator.hellos)
    assert events[0].text == f"no coordinator answers at {coordinator.address} yet; trying again until one does"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.ALREADY_EXISTS, AlreadyExistsError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, ForbiddenError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError),
    ],
)
async def test_a_refusal_for_good_ends_it_with_the_sentence(
    coordinator: FakeCoordinator, work: SteppedWork, code: grpc.StatusCode, kind: type[Exception]
) -> None:
    coordinator.refuse = (code, "A client named ann is connected already.")
    agent = Agent(coordinator.address, Profile("ann", "numbers", Manifest.of(STATE), 1, 1), work, settings=QUICK)
    with pytest.raises(kind, match="A client named ann is connected already"):
        async with asyncio.timeout(10):
            await agent.run()


async def test_a_drain_abandons_and_reconnects(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        coordinator.assign(assignment(digest))
        await eventually(lambda: work.trainings)
        coordinator.say(pb.ConnectResponse(drain=pb.Drain(reason="updating")))
        await eventually(lambda: work.ended)
        await eventually(lambda: len(coordinator.hellos) == 2)
        assert list(coordinator.hellos[1].running) == []
        # The same assignment, given again by a coordinator that has forgotten the first, is done.
        coordinator.assign(assignment(digest, max_steps=1))
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
        assert coordinator.outcomes == []
    assert any(event.kind == "drain" and "updating" in event.text for event in events)


async def test_a_notice_is_shown(coordinator: FakeCoordinator, work: SteppedWork) -> None:
    events: list[ClientEvent] = []
    async with running_agent(coordinator, work, events=events):
        coordinator.say(pb.ConnectResponse(notice=pb.Notice(text="your model is another one")))
        await eventually(lambda: any(event.text == "your model is another one" for event in events))


async def test_too_much_work_is_refused(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    async with running_agent(coordinator, work):
        for number in range(20):
            coordinator.assign(assignment(digest, str(number)))
        await eventually(lambda: len(coordinator.outcomes) == 4)
    assert {outcome.status for outcome in coordinator.outcomes[:4]} == {pb.OUTCOME_STATUS_REFUSED}


async def test_unknown_work_is_refused(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest, work=pb.WORK_UNSPECIFIED))
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_REFUSED


async def test_a_model_that_cannot_be_fetched_fails(coordinator: FakeCoordinator, work: SteppedWork) -> None:
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(b"x" * 32))
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_FAILED
    assert "no such model" in coordinator.outcomes[0].message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("mat1 and mat2\ncannot be multiplied"), "ValueError: mat1 and mat2 (test_agent.py, line "),
        (SystemExit("out of data"), "SystemExit: out of data (test_agent.py, line "),
    ],
)
async def test_what_the_works_own_code_raises_fails_in_one_sentence(
    coordinator: FakeCoordinator,
    work: SteppedWork,
    digest: bytes,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    said: str,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(work, "train", broken)
    async with running_agent(coordinator, work):
        coordinator.assign(assignment(digest))
        await eventually(lambda: coordinator.outcomes)
    [outcome] = coordinator.outcomes
    assert outcome.status == pb.OUTCOME_STATUS_FAILED
    assert outcome.message.startswith(said)


async def test_stopping_abandons_and_says_so(coordinator: FakeCoordinator, work: SteppedWork, digest: bytes) -> None:
    async with running_agent(coordinator, work) as agent:
        coordinator.assign(assignment(digest))
        await eventually(lambda: work.trainings)
        agent.stop()
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_ABANDONED
    assert work.ended == 1


async def test_what_is_assigned_while_it_stops_is_not_taken_on(
    coordinator: FakeCoordinator, work: SteppedWork, digest: bytes
) -> None:
    async with running_agent(coordinator, work) as agent:
        await eventually(lambda: coordinator.hellos)
    agent.on_assignment(assignment(digest))
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("assignment")]
