"""Work that a test steps by hand, and the agents that do it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import torch
from unit.client.fake_coordinator import FakeCoordinator

from fedstep.client.agent import Agent, AgentSettings, Profile
from fedstep.client.events import ClientEvent
from fedstep.client.retry import Backoff
from fedstep.client.work import Control, Evaluated, Job, StepSink, Trained
from fedstep.common.tensors import Manifest
from fedstep.v1 import fleet_pb2 as pb

STATE = {"w": torch.arange(6, dtype=torch.float32)}
QUICK = AgentSettings(backoff=Backoff(0.01, 0.05), stall_s=5.0)


class SteppedWork:
    """Every local step waits for `allow`; the update is what was received."""

    def __init__(self) -> None:
        self.trainings = 0
        self.evaluations = 0
        self.ended = 0
        self.steps_taken = 0
        self._leave = threading.Semaphore(0)

    def allow(self, steps: int) -> None:
        self._leave.release(steps)

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        self.trainings += 1
        step = 0
        try:
            while (not job.max_steps or step < job.max_steps) and control.go_on():
                # Asks anew now and then, as a real step does; a step itself is not interrupted.
                if self._leave.acquire(timeout=0.01):
                    steps.step(float(step), 2, 1.5)
                    step += 1
                    self.steps_taken += 1
        finally:
            self.ended += 1
        update = job.model.payload.view(torch.float32)
        return Trained(update, samples=12, steps=step, loss=0.5, train_time_s=0.25)

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        self.evaluations += 1
        return Evaluated({"loss": 0.25}, 9)


@contextlib.asynccontextmanager
async def running_agent(
    coordinator: FakeCoordinator,
    work: SteppedWork,
    name: str = "ann",
    events: list[ClientEvent] | None = None,
    settings: AgentSettings = QUICK,
) -> AsyncIterator[Agent]:
    """An agent that serves until the block ends."""
    heard = events if events is not None else []
    profile = Profile(name, "numbers", Manifest.of(STATE), train_samples=12, validation_samples=9)
    agent = Agent(coordinator.address, profile, work, heard.append, settings)
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        async with asyncio.timeout(10):
            await asyncio.gather(task, return_exceptions=True)


def assignment(
    digest: bytes,
    name: str = "a",
    attempt: int = 1,
    work: pb.Work.ValueType = pb.WORK_TRAIN,
    max_steps: int = 0,
    time_left_s: int = 60,
) -> pb.Assignment:
    message = pb.Assignment(
        ref=pb.AssignmentRef(assignment_id=name, attempt=attempt),
        work=work,
        study="s",
        trial=1,
        round=2,
        model_sha256=digest,
        max_steps=max_steps,
    )
    message.time_left.FromSeconds(time_left_s)
    return message
