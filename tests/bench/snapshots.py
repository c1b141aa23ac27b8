"""What those who watch a study's progress cost the coordinator.

python -m tests.bench snapshots [--watchers 50] [--seconds 8] [--runs 3]

A coordinator process in the middle of one long round of eight client processes, which report their steps all the while.
The watchers are in this process, each on a connection of its own, and ask for a snapshot every half second, as
`fedstep study watch` does. The cost is the processor time of the coordinator's process, in percent of one core.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from statistics import median

import psutil

from fedstep.api.aio import connect
from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_to_proto
from fedstep.server.cli.processes import Processes

CLIENTS = 8
INTERVAL_S = 0.5
SETTLE_S = 2.0


def study() -> StudySpec:
    """One whose first round outlasts the benchmark."""
    tables = {
        "name": "watched",
        "task": "digits",
        "space": {"lr": {"low": 0.01, "high": 0.1}},
        "hyperparameters": {"local_epochs": 100},
        "selector": {"name": "random"},
        "round": {"min_clients": CLIENTS, "deadline": "10m"},
    }
    return StudySpec.model_validate(tables)


async def measure(address: str, coordinator: psutil.Process, watchers: int, seconds: float) -> tuple[float, float]:
    """The share of a core that the coordinator takes, and the bytes of a snapshot."""
    sizes: list[int] = []

    async def watch() -> None:
        async with connect(address) as fedstep:
            async for snapshot in fedstep.snapshots("watched", INTERVAL_S):
                sizes.append(snapshot.ByteSize())  # noqa: PERF401 - it is cut off, and what came before counts

    watching = [asyncio.create_task(watch()) for _ in range(watchers)]
    await asyncio.sleep(SETTLE_S)
    before = coordinator.cpu_times()
    await asyncio.sleep(seconds)
    after = coordinator.cpu_times()
    for one in watching:
        one.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return (after.user + after.system - before.user - before.system) / seconds, median(sizes or [0])


async def compare(address: str, coordinator: psutil.Process, options: argparse.Namespace) -> None:
    """Prints what it takes with nobody and with the watchers, in turns."""
    async with connect(address) as fedstep:
        await fedstep.create(spec_to_proto(study()))
        async for snapshot in fedstep.snapshots("watched"):
            if snapshot.phases:
                break
    print(f"{'nobody':>10}{options.watchers:>6} watchers{'a snapshot':>14}")
    for _ in range(options.runs):
        alone, _ = await measure(address, coordinator, 0, options.seconds)
        watched, size = await measure(address, coordinator, options.watchers, options.seconds)
        print(f"{alone:>10.2%}{watched:>15.2%}{size:>8.0f} bytes", flush=True)


def main(arguments: list[str]) -> None:
    """Measures in turns, so that what else the machine does meets both."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench snapshots")
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        address = processes.start_coordinator(["--port", "0", "--data-dir", folder])
        (coordinator,) = (one for one in psutil.Process().children() if "coordinator" in one.cmdline())
        for number in range(1, CLIENTS + 1):
            share = ("--partition", f"{number}/{CLIENTS}", "--threads", "1", "--slowdown", "30")
            processes.start_client(f"client-{number}", ["--coordinator", address, "--task", "digits", *share])
        asyncio.run(compare(address, coordinator, options))
