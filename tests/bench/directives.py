"""How long a directive is on its way, with many clients that report every local step.

python -m tests.bench directives [--clients 200] [--step-ms 100] [--seconds 15] [--runs 3]

Every client has a control stream of its own and reports each step by itself, unbatched. The work is nobody's, so that
every report is answered by a directive to abandon it: a trip is from the report's sending to the directive's arrival,
the longest way that a directive takes. All clients live in one process beside the coordinator's.
"""

import argparse
import asyncio
import statistics
import time

from fedstep.common.loop import run
from tests.bench.fleet import echo_fleet
from tests.bench.probe import probe


async def client(address: str, number: int, step_s: float, end_s: float, trips_ms: list[float]) -> None:
    """Reports a step, hears the directive, and takes the next step."""
    async with probe(address, f"client-{number}") as control:
        await asyncio.sleep(step_s * (number % 100) / 100)  # they do not step in time with one another
        while time.perf_counter() < end_s:
            began_s = time.perf_counter()
            await control.round_trip()
            took_s = time.perf_counter() - began_s
            trips_ms.append(1e3 * took_s)
            await asyncio.sleep(max(0.0, step_s - took_s))


async def measure(address: str, clients: int, step_s: float, seconds: float) -> list[float]:
    """Milliseconds of every trip."""
    trips_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(address, number, step_s, end_s, trips_ms))
    return trips_ms


def main(arguments: list[str]) -> None:
    """Prints percentiles."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench directives")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    for number in range(1, options.runs + 1):
        with echo_fleet(0, 1) as fleet:
            before_s = fleet.cpu_s()
            trips_ms = run(measure(fleet.address, options.clients, options.step_ms / 1000, options.seconds))
            cpu = (fleet.cpu_s() - before_s) / options.seconds
        cuts = statistics.quantiles(trips_ms, n=100, method="inclusive")
        print(
            f"run {number}: {len(trips_ms) / options.seconds:,.0f} directives a second, median {cuts[49]:.1f} ms, "
            f"p99 {cuts[98]:.1f} ms, max {max(trips_ms):.1f} ms; the coordinator at {cpu:.0%} of a core",
            flush=True,
        )
