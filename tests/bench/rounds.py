"""A round of echo clients, one process each, beside the transport's floor and Flower, in the same run.

python -m tests.bench rounds [--clients 8] [--megabytes 10] [--rounds 12] [--runs 3] [--peers ../shared/bench]

A round is the time from one commit to the next: selection, dispatch, transfers, digests, checks, aggregation, the
model on the disk and the transaction. The floor leaves out all but the transfers and the sum.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

from fedstep.common.loop import run
from tests.bench.fleet import ROOT, echo_fleet, echo_spec, round_commits

FLOWER_VENV = Path.home() / ".cache" / "fedstep-bench" / "flower"


def fedstep_round(clients: int, megabytes: float, rounds: int) -> dict[str, float]:
    """One run of ours."""
    with echo_fleet(clients, megabytes) as fleet:
        idle_mb = fleet.peak_mb()

        async def commits() -> list[float]:
            return [at async for at in round_commits(fleet.address, echo_spec(clients, rounds))]

        times = run(commits())
        periods = [
            b - a for a, b in itertools.pairwise(times[1:])
        ]  # as the peers': the first is dropped, the median told
        return {
            "round_s": statistics.median(periods),
            "peak_mb": fleet.peak_mb(),
            "over_idle_mb": fleet.peak_mb() - idle_mb,
            "cpu_s": fleet.cpu_s(),
        }


def peer_round(program: Path, python: str, clients: int, megabytes: float, rounds: int) -> dict[str, float] | None:
    """One run of a peer's program; None when it is not there."""
    if not program.exists():
        return None
    env = {**os.environ, "SEM": "4"}
    command = [python, str(program), str(clients), f"{megabytes:g}", str(rounds)]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/tmp").stdout
    line = next((line for line in out.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        return None
    said = json.loads(line[7:].split(" total_wall")[0])
    return {"round_s": said["round_s_median"], "over_idle_mb": said["server_hwm_mb"] - said["server_base_mb"]}


def flower_python() -> str:
    """A Python that has Flower, in an environment of its own."""
    python = FLOWER_VENV / "bin" / "python"
    if not python.exists():
        venv.create(FLOWER_VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "flwr==1.41.0", "numpy"], check=True)
    return str(python)


def main(arguments: list[str]) -> None:
    """Prints every run, then medians and ratios within a run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench rounds")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=ROOT.parent / "shared" / "bench")
    parser.add_argument("--no-flower", action="store_true")
    options = parser.parse_args(arguments)
    size = (options.clients, options.megabytes, options.rounds)
    floors, flowers, ours_all = [], [], []
    for number in range(1, options.runs + 1):
        floor = peer_round(options.peers / "floor_round.py", sys.executable, *size)
        ours = fedstep_round(*size)
        program = options.peers / "flower_round.py"
        flower = None if options.no_flower or not program.exists() else peer_round(program, flower_python(), *size)
        ours_all.append(ours)
        print(f"run {number}: fedstep {ours}", f"floor {floor}", f"flower {flower}", sep="\n  ", flush=True)
        if floor:
            floors.append(ours["round_s"] / floor["round_s"])
        if flower:
            flowers.append(flower["round_s"] / ours["round_s"])
    print(
        f"{options.clients} x {options.megabytes:g} MB: round {_spread([o['round_s'] for o in ours_all])} s, ", end=""
    )
    print(f"{_spread([o['over_idle_mb'] for o in ours_all])} MB over idle")
    if floors:
        print(f"  times the floor: {_spread(floors)}")
    if flowers:
        print(f"  times faster than Flower: {_spread(flowers)}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main(sys.argv[1:])
