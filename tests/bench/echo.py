"""A task whose clients send back what they got: what is left is what fedstep itself costs.

As a program it is one echo client: `python -m tests.bench.echo ADDRESS NAME`. FEDSTEP_ECHO_MB is the model's size.
"""

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.agent import Agent, AgentSettings, Profile
from fedstep.client.work import Control, Evaluated, Job, StepSink, Trained
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.loop import run
from fedstep.common.security import PLAIN, read_security
from fedstep.common.task import ClientData, ClientInfo, Task
from fedstep.common.tasks import load_task
from fedstep.common.tensors import Manifest


class _Model(nn.Module):
    def __init__(self, megabytes: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(int(megabytes * 1e6 / 4)))


class EchoTask(Task):
    """One tensor of FEDSTEP_ECHO_MB megabytes."""

    name = "echo"

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        return _Model(float(os.environ.get("FEDSTEP_ECHO_MB", "10")))

    def load_data(self, client: ClientInfo) -> ClientData:
        nothing = TensorDataset(torch.zeros(1), torch.zeros(1))
        return ClientData(nothing, nothing)


class EchoWork:
    """Trains nothing."""

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        update = job.model.payload.view(torch.float32)
        return Trained(update, samples=1, steps=0, loss=0.0, train_time_s=0.0)

    def evaluate(self, job: Job, control: Control) -> Evaluated:
        return Evaluated({"loss": 0.0}, 1)


task = EchoTask()


async def client(address: str, name: str) -> None:
    served = load_task(os.environ.get("FEDSTEP_BENCH_TASK", "tests/bench/echo.py"))
    manifest = Manifest.of(served.build_model({}).state_dict())
    files = [
        Path(os.environ[name])
        for name in ("FEDSTEP_TLS_CA", "FEDSTEP_TLS_CERT", "FEDSTEP_TLS_KEY")
        if name in os.environ
    ]
    settings = AgentSettings(security=read_security(*files, None, None) if files else PLAIN)
    await Agent(address, Profile(name, "echo", manifest, 1, 1), EchoWork(), settings=settings).run()


if __name__ == "__main__":
    run(client(sys.argv[1], sys.argv[2]))
