"""Fetch and push over real sockets, cut, corrupted and refused."""

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
import pytest
import torch
from unit.client.fake_coordinator import FakeCoordinator, eventually

from fedstep.client.fetch import ModelCache, ModelFetcher
from fedstep.client.link import Link, OpenLink
from fedstep.client.push import Pushed, Update, UpdatePusher
from fedstep.client.retry import Backoff
from fedstep.common.channel import open_channel
from fedstep.common.errors import DataLossError, ExhaustedError, NotFoundError, UnavailableError
from fedstep.common.tensors import checksum
from fedstep.v1 import fleet_pb2 as pb

QUICK = Backoff(0.001, 0.01)
REF = pb.AssignmentRef(assignment_id="a", attempt=1)


def state(elements: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return {"w": torch.randn(elements, generator=torch.Generator().manual_seed(seed))}


@pytest.fixture
async def link(coordinator: FakeCoordinator) -> AsyncIterator[Link]:
    link = Link()
    async with open_channel(coordinator.address) as channel:
        link.open(OpenLink("s", channel, 1000, coordinator.address))
        yield link


@pytest.fixture
def fetcher(link: Link) -> ModelFetcher:
    return ModelFetcher(link, random.Random(0), stall_s=5.0, backoff=QUICK)


@pytest.fixture
def pusher(link: Link) -> UpdatePusher:
    return UpdatePusher(link, random.Random(0), stall_s=5.0, backoff=QUICK)


def update(elements: int = 2500) -> Update:
    values = state(elements)["w"]
    return Update(REF, values, checksum(values), pb.TrainingSummary(samples=3, steps=7))


async def test_a_model_arrives_as_it_was_sent(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    sent = state(2500)
    model = await fetcher.fetch(coordinator.store(sent))
    assert torch.equal(model.payload.view(torch.float32), sent["w"])
    assert [tensor.name for tensor in model.manifest.tensors] == ["w"]


async def test_a_cut_fetch_goes_on_at_the_byte_it_holds(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    sent = state(2500)
    coordinator.cut_fetches_after = [3000, 7000]
    model = await fetcher.fetch(coordinator.store(sent))
    assert torch.equal(model.payload.view(torch.float32), sent["w"])
    # A cut loses at most what was on its way: what was held is not asked for again.
    offsets = [request.offset for request in coordinator.fetches]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    assert len(offsets) == 3
    assert offsets[2] > 0


async def test_a_corrupt_fetch_is_made_again_from_the_start(
    coordinator: FakeCoordinator, fetcher: ModelFetcher
) -> None:
    sent = state(2500)
    coordinator.corrupt_fetches = 1
    model = await fetcher.fetch(coordinator.store(sent))
    assert torch.equal(model.payload.view(torch.float32), sent["w"])
    assert [request.offset for request in coordinator.fetches] == [0, 0]


async def test_a_fetch_corrupt_twice_is_given_up(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    coordinator.corrupt_fetches = 2
    with pytest.raises(DataLossError, match="corrupt twice"):
        await fetcher.fetch(coordinator.store(state(2500)))


async def test_an_unknown_model_is_not_asked_for_again(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    with pytest.raises(NotFoundError):
        await fetcher.fetch(b"x" * 32)
    assert len(coordinator.fetches) == 1


async def test_a_model_too_large_is_refused_before_its_first_chunk(coordinator: FakeCoordinator, link: Link) -> None:
    fetcher = ModelFetcher(link, random.Random(0), max_bytes=9_999, backoff=QUICK)
    coordinator.hold_fetches.clear()  # no chunk will come
    with pytest.raises(ExhaustedError, match="10000 bytes"):
        await fetcher.fetch(coordinator.store(state(2500)))


async def test_a_stalled_fetch_is_tried_again(coordinator: FakeCoordinator, link: Link) -> None:
    fetcher = ModelFetcher(link, random.Random(0), stall_s=0.05, backoff=QUICK)
    coordinator.hold_fetches.clear()
    digest = coordinator.store(state(2500))
    task = asyncio.create_task(fetcher.fetch(digest))
    await eventually(lambda: len(coordinator.fetches) >= 2)
    coordinator.hold_fetches.set()
    assert (await task).payload.numel() == 10_000


async def test_a_fetch_that_never_gets_on_is_given_up(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    coordinator.cut_fetches_after = [0] * 50
    with pytest.raises(UnavailableError):
        await fetcher.fetch(coordinator.store(state(2500)))
    assert 5 < len(coordinator.fetches) < 20


async def test_a_fetch_outlives_its_connection(coordinator: FakeCoordinator) -> None:
    link = Link()
    fetcher = ModelFetcher(link, random.Random(0), backoff=QUICK)
    coordinator.hold_fetches.clear()
    digest = coordinator.store(state(2500))
    channel = open_channel(coordinator.address)
    link.open(OpenLink("first", channel, 1000, coordinator.address))
    task = asyncio.create_task(fetcher.fetch(digest))
    await eventually(lambda: coordinator.fetches)
    link.close()
    await channel.close()
    coordinator.hold_fetches.set()
    async with open_channel(coordinator.address) as second:
        link.open(OpenLink("second", second, 1000, coordinator.address))
        assert (await task).payload.numel() == 10_000
    assert coordinator.fetches[-1].session_id == "second"


async def test_a_held_model_is_not_fetched(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    cache = ModelCache(fetcher)
    first, second, third = (coordinator.store(state(100, seed)) for seed in range(3))
    for digest in (first, second, first, second, third, second):
        await cache.get(digest)
    assert [request.sha256 for request in coordinator.fetches] == [first, second, third]
    await cache.get(first)  # the oldest of three: dropped, so it is fetched again
    assert len(coordinator.fetches) == 4


async def test_requests_for_one_model_share_a_fetch(coordinator: FakeCoordinator, fetcher: ModelFetcher) -> None:
    cache = ModelCache(fetcher)
    digest = coordinator.store(state(100))
    coordinator.hold_fetches.clear()
    impatient = asyncio.create_task(cache.get(digest))
    patient = asyncio.create_task(cache.get(digest))
    await eventually(lambda: coordinator.fetches)
    impatient.cancel()
    coordinator.hold_fetches.set()
    assert (await patient).payload.numel() == 400
    assert len(coordinator.fetches) == 1


async def test_an_update_arrives_whole(coordinator: FakeCoordinator, pusher: UpdatePusher) -> None:
    sent = update()
    assert await pusher.push(sent) == (Pushed.ACCEPTED, "")
    [(header, data)] = coordinator.accepted
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=torch.float32), sent.values)
    assert header.ref == REF
    assert header.session_id == "s"
    assert header.summary.steps == 7


async def test_a_cut_push_goes_on_at_the_byte_the_coordinator_holds(
    coordinator: FakeCoordinator, pusher: UpdatePusher
) -> None:
    coordinator.cut_pushes_after = [3000, 10**9, 5000]  # the second call only asks
    sent = update()
    assert (await pusher.push(sent))[0] is Pushed.ACCEPTED
    assert torch.equal(torch.frombuffer(bytearray(coordinator.accepted[0][1]), dtype=torch.float32), sent.values)
    offsets = [header.offset for header in coordinator.push_headers]
    assert offsets[0] == 0
    assert offsets[2] == 3000
    assert offsets[4] == 5000


async def test_a_corrupt_push_is_sent_once_more(coordinator: FakeCoordinator, pusher: UpdatePusher) -> None:
    coordinator.corrupt_pushes = 1
    assert (await pusher.push(update()))[0] is Pushed.ACCEPTED
    coordinator.corrupt_pushes = 2
    with pytest.raises(DataLossError):
        await pusher.push(update())


@pytest.mark.parametrize(
    ("code", "result"),
    [(grpc.StatusCode.FAILED_PRECONDITION, Pushed.STALE), (grpc.StatusCode.INVALID_ARGUMENT, Pushed.REFUSED)],
)
async def test_an_unwanted_update_is_not_sent_again(
    coordinator: FakeCoordinator, pusher: UpdatePusher, code: grpc.StatusCode, result: Pushed
) -> None:
    coordinator.refuse_pushes = (code, "no, thank you")
    # Large enough that the answer comes while it is still being written.
    assert await pusher.push(update(200_000)) == (result, "no, thank you")
    assert len(coordinator.push_headers) == 1


async def test_a_push_that_never_gets_on_is_given_up(coordinator: FakeCoordinator, pusher: UpdatePusher) -> None:
    coordinator.refuse_pushes = (grpc.StatusCode.UNAVAILABLE, "not now")
    with pytest.raises(UnavailableError):
        await pusher.push(update())
