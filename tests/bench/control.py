"""A control message's way there and back, while eight clients move 10 MB models without a pause.

python -m tests.bench control [--clients 8] [--megabytes 10] [--seconds 20]

The probe's message is a step report for work that nobody wants; the answer is the directive to abandon it.
"""

import argparse
import asyncio
import statistics
import time

from fedstep.common.loop import run
from tests.bench.fleet import echo_fleet, echo_spec, round_commits
from tests.bench.probe import probe


async def measure(address: str, clients: int, seconds: float) -> tuple[list[float], int]:
    """Round trips in milliseconds, and how many rounds went by meanwhile."""
    trips: list[float] = []
    rounds = 0
    busy = asyncio.Event()

    async def transfers() -> None:
        nonlocal rounds
        async for _ in round_commits(address, echo_spec(clients, 100_000)):
            rounds += 1
            if rounds == 2:
                busy.set()

    moving = asyncio.create_task(transfers())
    await busy.wait()
    before, end = rounds, time.perf_counter() + seconds
    async with probe(address, "probe") as control:
        while time.perf_counter() < end:
            started = time.perf_counter()
            await control.round_trip()
            trips.append((time.perf_counter() - started) * 1e3)
            await asyncio.sleep(0.005)
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    return trips, rounds - before


def main(arguments: list[str]) -> None:
    """Prints percentiles."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench control")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args(arguments)
    for number in range(1, options.runs + 1):
        with echo_fleet(options.clients, options.megabytes) as fleet:
            trips, rounds = run(measure(fleet.address, options.clients, options.seconds))
        cuts = statistics.quantiles(trips, n=100, method="inclusive")
        print(
            f"run {number}: {len(trips)} round trips over {rounds} rounds: median {cuts[49]:.1f} ms, "
            f"p99 {cuts[98]:.1f} ms, max {max(trips):.1f} ms",
            flush=True,
        )
