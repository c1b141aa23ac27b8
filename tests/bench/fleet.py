"""A coordinator process and echo clients, for the benchmarks."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedstep.api.aio import connect
from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_to_proto

ROOT = Path(__file__).parents[2]


@dataclass
class EchoFleet:
    """A coordinator and its clients as processes."""

    address: str
    coordinator: psutil.Process
    folder: Path

    def peak_mb(self) -> float:
        """The coordinator's greatest resident memory since it started."""
        for line in Path(f"/proc/{self.coordinator.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1e3
        return float("nan")

    def cpu_s(self) -> float:
        """CPU seconds of the coordinator."""
        times = self.coordinator.cpu_times()
        return times.user + times.system


def bench_task() -> str:
    """The task's file; another benchmark may name its own."""
    return os.environ.get("FEDSTEP_BENCH_TASK", "tests/bench/echo.py")


@contextmanager
def echo_fleet(clients: int, megabytes: float) -> Iterator[EchoFleet]:
    """Starts a coordinator and clients, and ends them."""
    env = {
        **os.environ,
        "FEDSTEP_ECHO_MB": str(megabytes),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-c", "from fedstep.common.cli import main; main()", "coordinator"]
        arguments = ["--port", "0", "--data-dir", folder, "--task", str(ROOT / bench_task()), "--json"]
        server = subprocess.Popen([*program, *arguments], env=env, stdout=subprocess.PIPE, cwd=ROOT)
        processes.append(server)
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            for i in range(clients):
                command = [sys.executable, "-m", "tests.bench.echo", address, f"echo-{i}"]
                processes.append(subprocess.Popen(command, env=env, cwd=ROOT))
            yield EchoFleet(address, psutil.Process(server.pid), Path(folder))
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
            for process in reversed(processes):
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def echo_spec(clients: int, rounds: int, name: str = "echo") -> StudySpec:
    """A study of one trial of so many rounds over everybody, without evaluation."""
    return StudySpec.model_validate(
        {
            "name": name,
            "task": "echo",
            "space": {"lr": {"type": "float", "low": 0.1, "high": 1.0}},
            "hyperparameters": {"server_lr": 1e-3},
            "tuner": {"name": "random"},
            "selector": {"name": "all"},
            "round": {"min_clients": clients, "deadline": "300s", "wait_for_clients": "300s"},
            "evaluation": {"cohort_size": 0, "held_out": False},
            "objective": {"metric": "train_loss"},
            "budget": {"trials": 1, "rounds_per_trial": rounds},
        }
    )


async def round_commits(address: str, spec: StudySpec) -> AsyncIterator[float]:
    """The time of every round's commit, by the coordinator's clock."""
    async with connect(address) as remote:
        await remote.create(spec_to_proto(spec))
        async for event in remote.watch(spec.name, lambda error: None):
            if event.kind == "round_committed":
                yield event.time.ToNanoseconds() / 1e9
            if event.kind in ("study_failed", "study_interrupted", "round_missed", "client_late"):
                print(event.text, file=sys.stderr)
