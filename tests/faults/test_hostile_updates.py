"""Clients that send what they must not: each is refused with the right status, counted and named, and the round
goes on without it."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
import torch
import xxhash
from e2e.inside import Inside, inside
from e2e.raw import GOOD, RawClient, raw_client
from e2e.studies import spec
from e2e.tiny import MANIFEST, SAMPLES, tiny_agent
from e2e.waiting import until

from fedstep.common import wire
from fedstep.common.tensors import as_bytes
from fedstep.server.storage.base import StudyState, TrialState
from fedstep.v1 import fleet_pb2 as pb

REFUSED = grpc.StatusCode.INVALID_ARGUMENT
STALE = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Inside]:
    async with inside(tmp_path) as running:
        yield running


def payload(*values: float) -> bytes:
    """An update whose first elements are these, and the others 0.01."""
    update = torch.full((MANIFEST.elements,), 0.01)
    update[: len(values)] = torch.tensor(values)
    return bytes(as_bytes(update))


async def nan_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, payload(math.nan))


async def infinite_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, payload(math.inf, -math.inf))


async def outsized_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, payload(1e9))


async def shorter_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD[:-4])


async def longer_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD + b"\0" * 4)


async def boundless_update(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, payload_bytes=1 << 62)


async def more_than_announced(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, chunks=[GOOD, GOOD])


async def oversized_chunk(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, chunks=[b"\0" * (5 << 20)])


async def empty_chunk(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, chunks=[b"", GOOD])


async def no_checksum(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, checksum=b"short")


async def two_headers(client: RawClient, assignment: pb.Assignment) -> None:
    header = pb.UpdateHeader(
        session_id=client.session_id,
        ref=assignment.ref,
        checksum=xxhash.xxh3_128_digest(GOOD),
        payload_bytes=len(GOOD),
        summary=pb.TrainingSummary(samples=1),
    )
    message = pb.PushUpdateRequest(header=header).SerializeToString()
    await client.send([message, message, wire.frame(GOOD)])


async def absurd_loss(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, summary=pb.TrainingSummary(samples=SAMPLES, steps=2, loss=1.7e307))


async def weight_out_of_thin_air(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, summary=pb.TrainingSummary(samples=1 << 60))


async def no_samples(client: RawClient, assignment: pb.Assignment) -> None:
    await client.push(assignment.ref, GOOD, summary=pb.TrainingSummary())


@pytest.mark.parametrize(
    "crime",
    [
        nan_update,
        absurd_loss,
        infinite_update,
        outsized_update,
        shorter_update,
        longer_update,
        boundless_update,
        more_than_announced,
        oversized_chunk,
        empty_chunk,
        no_checksum,
        two_headers,
        weight_out_of_thin_air,
        no_samples,
    ],
)
async def test_an_update_that_cannot_be_right_is_refused_and_the_round_goes_on(
    host: Inside, crime: Callable[[RawClient, pb.Assignment], Awaitable[None]]
) -> None:
    codes: list[grpc.StatusCode] = []

    async def misbehave(client: RawClient, assignment: pb.Assignment) -> None:
        try:
            await crime(client, assignment)
        except grpc.aio.AioRpcError as error:
            codes.append(error.code())

    async with tiny_agent(host.address, "honest"), raw_client(host.address, "mallory", misbehave):
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        record = await host.until_over("s")
    assert codes == [REFUSED]
    assert record.state is StudyState.COMPLETED
    assert [(set(r.cohort), r.updates) for r in await host.rounds("s")] == [({"honest", "mallory"}, 1)]
    refused = await host.events("s", "client_refused")
    assert [event.details["client"] for event in refused] == ["mallory"]
    assert "mallory" in refused[0].text
    assert host.faults("mallory") == 1
    assert host.faults("honest") == 0


async def test_updates_that_ran_away_fail_their_trial_and_do_not_interrupt_the_study(host: Inside) -> None:
    async def run_away(client: RawClient, assignment: pb.Assignment) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await outsized_update(client, assignment)

    async with raw_client(host.address, "fast", run_away):
        await host.create(spec(budget={"trials": 2, "rounds_per_trial": 1}))
        record = await host.until_over("s")
    assert record.state is not StudyState.INTERRUPTED
    trials = await host.trials("s")
    assert [trial.state for trial in trials] == [TrialState.FAILED] * 2
    assert all("training diverged on 1 of 1 clients" in trial.message for trial in trials)


async def test_a_corrupt_update_is_counted_and_taken_when_it_is_sent_again(host: Inside) -> None:
    codes: list[grpc.StatusCode] = []

    async def corrupt_at_first(client: RawClient, assignment: pb.Assignment) -> None:
        spoilt = bytes([GOOD[0] ^ 1]) + GOOD[1:]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.push(assignment.ref, GOOD, chunks=[spoilt])
        codes.append(error.value.code())
        await client.push(assignment.ref, GOOD)

    async with raw_client(host.address, "unlucky", corrupt_at_first) as client:
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        assert client.errors == []
    assert codes == [grpc.StatusCode.DATA_LOSS]
    assert [r.updates for r in await host.rounds("s")] == [1]
    assert host.faults("unlucky") == 1
    named = await host.events("s", "update_corrupt")
    assert [event.details["client"] for event in named] == ["unlucky"]
    assert "checksum" in named[0].text


async def test_an_update_of_an_earlier_attempt_is_stale(host: Inside) -> None:
    codes: list[grpc.StatusCode] = []

    async def one_attempt_behind(client: RawClient, assignment: pb.Assignment) -> None:
        stale = pb.AssignmentRef(assignment_id=assignment.ref.assignment_id, attempt=assignment.ref.attempt - 1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.push(stale)
        codes.append(error.value.code())
        await client.push(assignment.ref)

    async with raw_client(host.address, "late", one_attempt_behind):
        await host.create(spec(budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert codes == [STALE]
    assert host.faults("late") == 1
    assert [event.details["client"] for event in await host.events("s", "update_stale")] == ["late"]


async def test_an_update_for_a_round_that_is_over_is_stale(host: Inside) -> None:
    async with raw_client(host.address, "slow") as client:
        await host.create(spec(budget={"rounds_per_trial": 1}))
        await host.until_over("s")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.push(client.trainings()[0].ref)
    assert error.value.code() is STALE
    assert host.faults("slow") == 1


async def test_nobody_answers_for_another_client(host: Inside) -> None:
    async with raw_client(host.address, "mallory") as mallory, raw_client(host.address, "victim") as victim:
        held = asyncio.Event()
        codes: list[grpc.StatusCode] = []

        async def wait(client: RawClient, assignment: pb.Assignment) -> None:
            await held.wait()
            await client.push(assignment.ref)

        victim.on_train = wait
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        await until(victim.trainings, "the victim is asked to train")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await mallory.push(victim.trainings()[0].ref, payload(1.0))
        codes.append(error.value.code())
        outcome = pb.Outcome(ref=victim.trainings()[0].ref, status=pb.OUTCOME_STATUS_FAILED, message="forged")
        await mallory.tell(pb.ConnectRequest(outcome=outcome))
        await mallory.report(victim.trainings()[0].ref, [math.nan])
        await until(lambda: mallory.directives, "mallory is told that the work is not its own")
        held.set()
        assert (await host.until_over("s")).state is StudyState.COMPLETED
    assert codes == [STALE]
    assert [r.updates for r in await host.rounds("s")] == [2]
    assert (host.faults("mallory"), host.faults("victim")) == (1, 0)
    assert [event.details["client"] for event in await host.events("s", "update_stale")] == ["mallory"]


async def test_only_a_session_that_lives_may_transfer(host: Inside) -> None:
    async with raw_client(host.address, "first") as client:
        ref = pb.AssignmentRef(assignment_id="s/0/0/train/first", attempt=1)
        for session in ("", "nobody's", "x" * 100_000):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.push(ref, session_id=session)
            assert error.value.code() is STALE
        client.welcome.session_id = "nobody's"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.fetch(b"\0" * 32)
        assert error.value.code() is STALE


async def test_a_transfer_must_begin_with_its_header(host: Inside) -> None:
    async with raw_client(host.address, "rude") as client:
        for messages in ([wire.frame(GOOD)], [b""], []):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.send(messages)
            assert error.value.code() is REFUSED, messages
            assert "header" in (error.value.details() or "")


async def test_bytes_that_are_no_message_are_refused(host: Inside) -> None:
    async with raw_client(host.address, "noise") as client:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.send([b"\xff" * 64])
    assert error.value.code() is REFUSED


async def test_there_is_no_model_of_a_made_up_digest_or_offset(host: Inside) -> None:
    seen = asyncio.Event()

    async def fetch_beyond(client: RawClient, assignment: pb.Assignment) -> None:
        for offset in (MANIFEST.payload_bytes + 1, 1 << 63):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.fetch(assignment.model_sha256, offset)
            assert error.value.code() is REFUSED
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.fetch(b"\0" * 32)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        seen.set()
        await client.push(assignment.ref)

    async with raw_client(host.address, "curious", fetch_beyond) as client:
        await host.create(spec(budget={"rounds_per_trial": 1}))
        await host.until_over("s")
        assert client.errors == []
    assert seen.is_set()


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": math.nan, "accuracy": math.inf},
        {"loss": 1.0, "accuracy": 1.7e308},
        {"loss": 1.0, "accuracy": -1.7e307},
        {"loss": 1.0, "accuracy": 0.9, "\x1b[2J": 1.0},
        {"loss": 1.0, "accuracy": 0.9, "m" * 101: 1.0},
    ],
)
async def test_metrics_that_cannot_be_right_do_not_reach_the_tuner(host: Inside, metrics: dict[str, float]) -> None:
    async def lie(client: RawClient, assignment: pb.Assignment) -> None:
        outcome = pb.Outcome(
            ref=assignment.ref,
            status=pb.OUTCOME_STATUS_COMPLETED,
            metrics=metrics,
            samples=10,
        )
        await client.tell(pb.ConnectRequest(outcome=outcome))

    async with tiny_agent(host.address, "honest"), raw_client(host.address, "mallory") as mallory:
        mallory.on_evaluate = lie
        await host.create(spec(round={"min_clients": 2}, budget={"rounds_per_trial": 1}))
        record = await host.until_over("s")
    assert record.state is StudyState.COMPLETED
    assert [r.value for r in await host.rounds("s")] == [0.5]
    assert host.faults("mallory") == 1
