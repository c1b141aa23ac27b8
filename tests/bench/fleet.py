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

from fedstep.common.security import PLAIN, Security, read_security
from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_to_proto
from fedstep.server.authority import Made
from fedstep.server.cli.remote import connect

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Keys:
    """What a fleet with TLS on both sides goes by: the CA's certificate, and the pairs of who takes part."""

    authority: Path
    coordinator: Made
    client: Made
    operator: Made

    def of_coordinator(self) -> list[str]:
        """Its options."""
        pair = self.coordinator
        return ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--tls-ca", str(self.authority)]

    def of_client(self) -> dict[str, str]:
        """Its environment."""
        files = {"CA": self.authority, "CERT": self.client.certificate, "KEY": self.client.key}
        return {f"FEDSTEP_TLS_{name}": str(path) for name, path in files.items()}

    def of_operator(self) -> Security:
        """For `connect`."""
        return read_security(self.authority, self.operator.certificate, self.operator.key, None, None)


@dataclass
class EchoFleet:
    """A coordinator and its clients as processes."""

    address: str
    coordinator: psutil.Process
    folder: Path
    security: Security

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
def echo_fleet(clients: int, megabytes: float, keys: Keys | None = None) -> Iterator[EchoFleet]:
    """Starts a coordinator and clients, and ends them. With keys, TLS is between them: then one client, echo-0."""
    env = {
        **os.environ,
        "FEDSTEP_ECHO_MB": str(megabytes),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **(keys.of_client() if keys else {}),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-c", "from fedstep.common.cli import main; main()", "coordinator"]
        arguments = ["--port", "0", "--data-dir", folder, "--task", str(ROOT / bench_task()), "--json"]
        arguments += keys.of_coordinator() if keys else []
        server = subprocess.Popen([*program, *arguments], env=env, stdout=subprocess.PIPE, cwd=ROOT)
        processes.append(server)
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["address"]
            for i in range(clients):
                command = [sys.executable, "-m", "tests.bench.echo", address, f"echo-{i}"]
                processes.append(subprocess.Popen(command, env=env, cwd=ROOT))
            security = keys.of_operator() if keys else PLAIN
            yield EchoFleet(address, psutil.Process(server.pid), Path(folder), security)
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


async def round_commits(address: str, spec: StudySpec, security: Security = PLAIN) -> AsyncIterator[float]:
    """The time of every round's commit, by the coordinator's clock."""
    async with connect(address, security) as remote:
        await remote.create(spec_to_proto(spec))
        async for event in remote.watch(spec.name, lambda error: None):
            if event.kind == "round_committed":
                yield event.time.ToNanoseconds() / 1e9
            if event.kind in ("study_failed", "study_interrupted", "round_missed", "client_late"):
                print(event.text, file=sys.stderr)
