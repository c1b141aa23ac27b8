"""The part of `deadlines` with real processes: some clients slow, one frozen for half of each round."""

import asyncio
import os
import random
import signal
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from google.protobuf.json_format import MessageToDict
from torch.utils.data import ConcatDataset

from fedstep.api.aio import AsyncFedstep, connect
from fedstep.client.fetch import ModelFetcher
from fedstep.client.link import Link, OpenLink
from fedstep.common.channel import open_channel
from fedstep.common.errors import FedstepError
from fedstep.common.evaluate import evaluate
from fedstep.common.loop import run
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.task import ClientData, ClientInfo, Samples, Task
from fedstep.common.tasks import full_hyperparameters, load_task
from fedstep.common.tensors import unpack
from fedstep.server.cli.processes import Processes
from fedstep.server.coordination import narrate
from fedstep.server.storage.sql_store import open_store
from fedstep.v1 import study_pb2
from tests.bench.fleet import ROOT
from tests.bench.policies import Policy, Ran, Terms, Waits
from tests.bench.probe import probe

CPU = torch.device("cpu")
STUDY = "deadlines"
TASK = "tests/bench/writers_paced.py"
FIRST_FREEZE_S = 0.5
CLIENTS_COME_S = 300.0
JUDGE = "judge"


@dataclass(frozen=True)
class Fleet:
    """The machines.

    Attributes:
        data: Path to the writers' digits.
        writers: How many share out their digits, of the 300: with fewer a round takes fewer steps.
        step_ms: How long a local step takes on a machine that is not slow.
        clients: How many.
        slow: The first so many are slow ones.
        slowdown: How many times as slow as the others.
        frozen: Whether the last client is frozen for half of each round.
    """

    data: str
    writers: int
    step_ms: float
    clients: int
    slow: int
    slowdown: float
    frozen: bool

    @property
    def options(self) -> dict[str, str]:
        return {"data": self.data, "writers": str(self.writers), "step_ms": f"{self.step_ms:g}"}

    def names(self) -> list[str]:
        return [f"client-{number:02}" for number in range(self.clients)]

    def arguments(self, number: int) -> list[str]:
        slowdown = self.slowdown if number < self.slow else 1.0
        options = [word for key, value in self.options.items() for word in ("--option", f"{key}={value}")]
        share = ["--partition", f"{number + 1}/{self.clients}", "--threads", "1"]
        return ["--task", str(ROOT / TASK), *share, "--slowdown", f"{slowdown:g}", *options]


class Judge:
    """Measures models on data that nobody trains on, and on the clients' own."""

    def __init__(self, fleet: Fleet) -> None:
        self.task: Task = load_task(str(ROOT / TASK))
        infos = [ClientInfo(name, (i, fleet.clients), fleet.options) for i, name in enumerate(fleet.names())]
        with self.task.loading_many():
            shares = [_whole(self.task.load_data(info)) for info in infos]
        held_out = self.task.load_held_out(fleet.options)
        assert held_out is not None, "the task holds nothing out"
        self.held_out: Samples = held_out
        self.everyone, self.slow = ConcatDataset(shares), ConcatDataset(shares[: fleet.slow or None])

    def accuracy(self, state: dict[str, torch.Tensor], samples: Samples) -> float:
        model = self.task.build_model(full_hyperparameters(self.task, {}))
        model.load_state_dict(state)
        metrics, _ = evaluate(self.task, model, samples, CPU)
        return metrics["accuracy"]


def _whole(data: ClientData) -> Samples:
    """A client's data, for training and validation; once where both are the same."""
    if data.train is data.validation:
        return data.train
    return ConcatDataset([data.train, data.validation])


_Models = list[tuple[float, dict[str, torch.Tensor]]]
"""When each round was committed since the study began, and the model of then."""


class Freezer:
    """Freezes a process at the start of each round, for half of the time that the last one took."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._thaw: asyncio.TimerHandle | None = None

    def round_begins(self, last_s: float) -> None:
        self.thaw()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGSTOP)
            self._thaw = asyncio.get_running_loop().call_later(last_s / 2, self.thaw)

    def thaw(self) -> None:
        if self._thaw is not None:
            self._thaw.cancel()
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGCONT)


async def _watched(address: str, folder: Path, study: study_pb2.StudySpec, freezer: Freezer) -> _Models:
    """Runs the study; its models are fetched as a client would."""
    found: _Models = []
    began_s = 0.0
    link = Link()
    fetcher = ModelFetcher(link, random.Random(0))
    async with connect(address) as remote, probe(address, JUDGE) as judge, open_channel(address) as bulk:
        link.open(OpenLink(judge.session_id, bulk, 1 << 20, address))
        await _all_there(remote, study.round.min_clients)
        await remote.create(study)
        try:
            async for event in remote.watch(STUDY, lambda error: None):
                at_s = event.time.ToNanoseconds() / 1e9
                if event.kind == "trial_started":
                    began_s = at_s
                    freezer.round_begins(FIRST_FREEZE_S)
                elif event.kind == "round_committed":
                    details = MessageToDict(event.details)
                    freezer.round_begins(details["seconds"])
                    with suppress(FedstepError):  # the next round has ended meanwhile: a point less
                        model = await fetcher.fetch(_digest(folder, int(details["round"])))
                        found.append((at_s - began_s, unpack(model.payload, model.manifest)))
        finally:
            freezer.thaw()
    return found


async def _all_there(remote: AsyncFedstep, clients: int) -> None:
    """Waits until every client has come, so that no policy pays for the start of its processes."""
    async with asyncio.timeout(CLIENTS_COME_S):
        while True:
            there = [c for c in await remote.clients() if c.state == study_pb2.CLIENT_STATE_IDLE and c.name != JUDGE]
            if len(there) >= clients:
                return
            await asyncio.sleep(0.1)


def _digest(folder: Path, number: int) -> bytes:
    """Of the model that a round made: the protocol does not tell it to those who only watch."""
    with closing(sqlite3.connect(f"file:{folder / 'fedstep.db'}?mode=ro", uri=True)) as database:
        (digest,) = database.execute("SELECT model_sha256 FROM fedstep_rounds WHERE round = ?", (number,)).fetchone()
    return bytes(digest)


def run_all(policies: Sequence[Policy], fleet: Fleet, judge: Judge, terms: Terms) -> Iterator[Ran]:
    """Every policy in turn: a coordinator of its own each, which knows nobody, and the same client processes."""
    with tempfile.TemporaryDirectory() as logs, Processes(Path(logs)) as machines:
        port, pids = 0, list[int]()
        for policy in policies:
            spec = policy.study(judge.task.name, terms, 0, fleet.clients)
            with tempfile.TemporaryDirectory() as folder:
                with Processes(Path(folder) / "logs") as host:
                    task = ["--task", str(ROOT / TASK)]
                    address = host.start_coordinator(["--port", str(port), "--data-dir", folder, *task])
                    port = int(address.rpartition(":")[2])
                    pids = pids or [
                        machines.start_client(name, ["--coordinator", address, *fleet.arguments(number)])
                        for number, name in enumerate(fleet.names())
                    ]
                    freezer = Freezer(pids[-1] if fleet.frozen else None)
                    models = run(_watched(address, Path(folder), spec_to_proto(spec), freezer))
                yield _judged(policy, fleet, judge, models, folder)


def _judged(policy: Policy, fleet: Fleet, judge: Judge, models: _Models, folder: str) -> Ran:
    """What the models are worth, and what the database says of how they came about."""
    store = open_store(f"sqlite:///{folder}/fedstep.db")
    record, records = store.study(STUDY), store.rounds(STUDY)
    assignments = [a for a in store.assignments(STUDY) if a.work == "train"]
    late = narrate.taken_late(store.events(STUDY, limit=1_000_000, kind=narrate.LATE_UPDATE))
    store.close()
    began = records[0].ended_at.timestamp() - records[0].seconds if records else 0.0
    ended = {record.round: record.ended_at.timestamp() - began for record in records}
    last = models[-1][1] if models else judge.task.build_model(full_hyperparameters(judge.task, {})).state_dict()
    return Ran(
        policy.text,
        [at_s for at_s, _ in models],
        [judge.accuracy(state, judge.held_out) for _, state in models],
        len(records),
        judge.accuracy(last, judge.everyone),
        judge.accuracy(last, judge.slow),
        Waits.of(fleet.names(), assignments, ended, late),
        assignments,
        "" if record.state.value == "completed" else f"{record.state.value}: {record.message}",
    )
