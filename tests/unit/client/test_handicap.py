"""An agent that acts as a poorer machine, against a coordinator over real sockets."""

import random
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from unit.client.fake_coordinator import FakeCoordinator, eventually
from unit.client.test_cli import refused
from unit.client.test_transfers import link, state, update
from unit.client.work_kit import STATE, SteppedWork, assignment, running_agent

from fedstep.client.agent import AgentSettings
from fedstep.client.bucket import Bucket
from fedstep.client.cli import client
from fedstep.client.events import ClientEvent
from fedstep.client.fetch import ModelFetcher
from fedstep.client.link import Link
from fedstep.client.push import Pushed, UpdatePusher
from fedstep.client.retry import Backoff
from fedstep.common.handicap import Handicap
from fedstep.common.pauses import Pauses
from fedstep.v1 import fleet_pb2 as pb

__all__ = ["link"]

ENDLESS = Handicap(slowdown=1e6)
"""A step of the stepped work, 1.5 ms, then takes 25 minutes."""


def settings(handicap: Handicap) -> AgentSettings:
    return AgentSettings(backoff=Backoff(0.01, 0.05), handicap=handicap)


class CountingBucket(Bucket):
    """Lets everything through, and writes down what."""

    def __init__(self) -> None:
        super().__init__(1e12, time.monotonic)
        self.sizes: list[int] = []

    def claim(self, size_bytes: int) -> float:
        self.sizes.append(size_bytes)
        return super().claim(size_bytes)


async def test_a_step_that_sleeps_is_called_off_and_heartbeats_go_on(coordinator: FakeCoordinator) -> None:
    work, digest = SteppedWork(), coordinator.store(STATE)
    async with running_agent(coordinator, work, settings=settings(ENDLESS)):
        coordinator.assign(assignment(digest))
        work.allow(1)
        await eventually(lambda: work.trainings)
        before = coordinator.heartbeats
        await eventually(lambda: coordinator.heartbeats > before)
        assert not coordinator.steps_of("a")
        await eventually(lambda: not work._leave._value)  # it has taken its step, and sleeps in it
        coordinator.direct(pb.AssignmentRef(assignment_id="a", attempt=1), pb.DIRECTIVE_KIND_ABANDON)
        await eventually(lambda: coordinator.outcomes)
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_ABANDONED
    assert coordinator.push_headers == []
    assert not coordinator.steps_of("a")  # it was not taken to its end


async def test_an_agent_is_stopped_in_a_step_that_sleeps(coordinator: FakeCoordinator) -> None:
    work, digest = SteppedWork(), coordinator.store(STATE)
    async with running_agent(coordinator, work, settings=settings(ENDLESS)):
        coordinator.assign(assignment(digest))
        work.allow(1)
        await eventually(lambda: not work._leave._value)
    assert work.ended == 1


async def test_one_that_is_away_comes_later_and_one_that_leaves_comes_back(coordinator: FakeCoordinator) -> None:
    work, digest, events = SteppedWork(), coordinator.store(STATE), list[ClientEvent]()
    coming_and_going = Handicap(absences=Pauses(((0.0, 0.2), (1.0, 1.2))))
    async with running_agent(coordinator, work, events=events, settings=settings(coming_and_going)):
        await eventually(lambda: coordinator.hellos)
        coordinator.assign(assignment(digest, max_steps=1))
        await eventually(lambda: len(coordinator.hellos) == 2)
        work.allow(1)
        await eventually(lambda: coordinator.accepted)
    texts = [event.text for event in events if event.kind == "disconnected"]
    assert len(texts) == 1
    assert "This machine acts as one that is away for 0.2 s" in texts[0]
    assert [ref.assignment_id for ref in coordinator.hellos[1].running] == ["a"]
    assert work.trainings == 1


async def test_every_byte_of_a_model_and_of_an_update_passes_through_a_bucket(
    coordinator: FakeCoordinator, link: Link
) -> None:
    down, up = CountingBucket(), CountingBucket()
    fetcher = ModelFetcher(link, random.Random(0), bucket=down)
    pusher = UpdatePusher(link, random.Random(0), bucket=up)
    model = await fetcher.fetch(coordinator.store(state(2500)))
    assert model.payload.dtype is torch.uint8
    assert sum(down.sizes) == 10_000
    assert await pusher.push(update(2500)) == (Pushed.ACCEPTED, "")
    assert len(up.sizes) == 10
    assert sum(up.sizes) >= 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--slowdown", "0.1"], "0.1 is no slowdown"),
        (["--stall-every", "10s"], "10s is no rhythm of stalls"),
        (["--bandwidth", "fast"], "fast is no bandwidth"),
        (["--trace", "/no/such.csv"], "The trace /no/such.csv cannot be read"),
    ],
)
def test_a_mistake_in_a_handicap_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in refused("--task", "digits", *arguments)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("FEDSTEP_SLOWDOWN", "0.1", "0.1 is no slowdown"),
        ("FEDSTEP_STALL_EVERY", "10s", "10s is no rhythm"),
        ("FEDSTEP_BANDWIDTH", "fast", "fast is no bandwidth"),
    ],
)
def test_the_environment_sets_it_for_clients_that_others_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    assert sentence in refused("--task", "digits")


def test_a_trace_is_looked_up_by_the_clients_name(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("client,away_from_s,away_until_s\nann,3,2\n")
    assert "ann,3,2 is no interval" in refused("--task", "digits", "--name", "ann", "--trace", str(trace))


def test_a_trace_without_the_clients_name_is_spoken_of(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("client,away_from_s,away_until_s\nann,2,3\n")
    as_ben = ("--task", "digits", "--name", "ben", "--trace", str(trace), "--device", "nothing of the kind")
    said = CliRunner().invoke(client, ["--coordinator", "127.0.0.1:1", *as_ben]).output
    assert f"The trace {trace} does not name ben, so this client is never away." in said
