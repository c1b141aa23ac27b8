"""The smallest task there is, and agents that work on it inside the test's own process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.agent import Agent, AgentSettings, Profile
from fedstep.client.events import ClientEvent
from fedstep.client.retry import Backoff
from fedstep.client.work import Control, Evaluated, Job, StepSink, Trained
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.security import PLAIN, Security
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.tensors import Manifest

SAMPLES = 10


class Tiny(Task):
    """Ten parameters; its data is never looked at."""

    name = "tiny"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return nn.Linear(4, 2)

    def load_data(self, client: ClientInfo) -> ClientData:
        nothing = TensorDataset(torch.zeros(SAMPLES, 4), torch.zeros(SAMPLES, dtype=torch.int64))
        return ClientData(nothing, nothing)


MANIFEST = Manifest.of(nn.Linear(4, 2).state_dict())


class TinyWork:
    """Takes two steps, and answers with an update that grows with the learning rate.

    Attributes:
        gate: While it is closed, a training waits before its second step.
        trained: What it trained, in order.
    """

    def __init__(self, accuracy: Callable[[Job], float] = lambda job: 0.5) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.trained: list[Job] = []
        self.begun = 0
        self._accuracy = accuracy

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        self.begun += 1
        taken = 0
        while taken < 2 and control.go_on():
            if taken == 1 and not self.gate.wait(0.01):
                continue
            steps.step(1.0 / (1 + taken), 5, 2.0)
            taken += 1
        self.trained.append(job)
        update = torch.full((MANIFEST.elements,), float(job.hyperparameters.get("lr", 0.1)))
        return Trained(update, samples=SAMPLES, steps=taken, loss=0.5, train_time_s=0.01)

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        return Evaluated({"loss": 1.0, "accuracy": self._accuracy(job)}, SAMPLES)


def agent_of(
    address: str, name: str, work: TinyWork, heard: list[ClientEvent] | None = None, security: Security = PLAIN
) -> Agent:
    """The agent of such a client."""
    profile = Profile(name, "tiny", MANIFEST, train_samples=SAMPLES, validation_samples=SAMPLES)
    listener = heard.append if heard is not None else (lambda event: None)
    settings = AgentSettings(backoff=Backoff(0.02, 0.2), security=security)
    return Agent(address, profile, work, listener, settings)


@asynccontextmanager
async def tiny_agent(
    address: str,
    name: str,
    work: TinyWork | None = None,
    heard: list[ClientEvent] | None = None,
    security: Security = PLAIN,
) -> AsyncIterator[TinyWork]:
    """A client of the real kind, but for its training, until the block ends."""
    work = work or TinyWork()
    agent = agent_of(address, name, work, heard, security)
    running = asyncio.create_task(agent.run(), name=f"agent {name}")
    try:
        yield work
    finally:
        agent.stop()
        work.gate.set()
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await asyncio.gather(running, return_exceptions=True)
