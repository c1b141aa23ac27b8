"""A cohort drawn from a large fleet: the whole way from the fleet's columns to the names that are asked.

python -m tests.bench selection [--clients 100000] [--cohort 100] [--runs 30]

Every client is connected, measured and has trained before. `ratio` is to numpy's own weighted draw of as many from as
many, in the same run. Between two draws a cohort is given out and comes back, as in a study.
"""

import argparse
import math
import statistics
import time

import numpy as np

from fedstep.common.clock import SystemClock
from fedstep.common.loop import run
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.cohorts import Cohorts
from fedstep.server.coordination.eligible import Eligible
from fedstep.server.coordination.fleet import Fleet, LeasePolicy
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.run import initial_run
from fedstep.server.coordination.waiting import Waiting
from fedstep.server.selection.base import Part, RoundSeen
from fedstep.server.selection.pace import Paces
from fedstep.server.selection.registry import create_selector
from fedstep.server.storage.base import NewEvent, PaceRecord
from fedstep.server.tuning.base import Arm
from fedstep.v1 import fleet_pb2
from tests.bench.echo import task

SELECTORS = ("deadline", "oort", "power_of_choice", "random")


async def populated(clients: int, manifest: Manifest) -> tuple[Fleet, PaceBook]:
    """A fleet of clients that were here before."""
    names = [f"client-{number}" for number in range(clients)]
    rng = np.random.default_rng(0)
    paces = Paces()
    paces.fit(clients)
    for row, step_ms in enumerate(10 * np.exp(rng.standard_normal(clients))):
        paces.stepped(row, 16, [step_ms])
        paces.moved(row, "download", 1_000_000, step_ms / 10)
        paces.moved(row, "upload", 1_000_000, step_ms / 5)
        paces.rested(row, 0.05)
    fleet = Fleet(SystemClock(), LeasePolicy(), [])
    history = [PaceRecord(name, {"task": "echo", **paces.kept(row)}) for row, name in enumerate(names)]
    book = PaceBook(fleet, Ledger(fleet, SystemClock()), history)
    hello = fleet_pb2.Hello(instance_id="1", task="echo", model=manifest.to_proto(), validation_samples=10)
    for name, samples in zip(names, rng.integers(10, 1000, clients), strict=True):
        hello.client_name, hello.train_samples = name, int(samples)
        await fleet.join(hello)
    return fleet, book


async def measure(selector: str, fleet: Fleet, book: PaceBook, cohort: int, runs: int) -> tuple[list[float], float]:
    """Milliseconds of each draw, and of the first evaluation cohort of a generation."""
    spec = StudySpec.model_validate(
        {
            "name": "bench",
            "task": "echo",
            "space": {"lr": {"low": 0.1, "high": 1.0}},
            "selector": {"name": selector},
            "round": {"cohort_size": cohort},
        }
    )
    eligible = Eligible(spec, fleet)
    eligible.compare_with(fleet.at(0).manifest)
    waiting = Waiting(spec, fleet, eligible, SystemClock(), _unheard, lambda: math.inf)
    cohorts = Cohorts(spec, fleet, book, create_selector(spec.selector), eligible, waiting)
    started = initial_run(spec, task, 0, DEFAULTS)
    arm = Arm(0, {}, cohort=1)
    everyone = [Part(member.name, True, samples=10, loss=1 + member.row % 7 / 7) for member in fleet.members()]
    cohorts.take_in(RoundSeen(0, 0, everyone))
    await cohorts.wait(started, arm)
    took = []
    for number in range(runs):
        began = time.perf_counter()
        selection = cohorts.select(started, arm, attempt=number + 1)
        took.append((time.perf_counter() - began) * 1e3)
        for busy in ("at work", ""):
            for member in cohorts.members(selection.cohort):
                member.busy = busy
    began = time.perf_counter()
    cohorts.evaluators(2)
    return took, (time.perf_counter() - began) * 1e3


async def _unheard(event: NewEvent) -> None:
    return


def draws(clients: int, cohort: int, runs: int) -> list[float]:
    """Milliseconds of numpy's own weighted draw."""
    rng = np.random.default_rng(0)
    took = []
    for _ in range(runs):
        weights = rng.random(clients)
        began = time.perf_counter()
        rng.choice(clients, size=cohort, replace=False, p=weights / weights.sum())
        took.append((time.perf_counter() - began) * 1e3)
    return took


async def compare(clients: int, cohort: int, runs: int) -> None:
    """Prints a line a selector."""
    manifest = Manifest.of(task.build_model({}).state_dict())
    fleet, book = await populated(clients, manifest)
    plain = statistics.median(draws(clients, cohort, runs))
    print(f"{clients:,} candidates, {cohort} wanted; numpy's weighted draw: median {plain:.1f} ms", flush=True)
    for selector in SELECTORS:
        took, evaluators_ms = await measure(selector, fleet, book, cohort, runs)
        cuts = statistics.quantiles(took, n=20, method="inclusive")
        print(
            f"{selector}: median {cuts[9]:.1f} ms, p95 {cuts[18]:.1f} ms, max {max(took):.1f} ms, "
            f"ratio {cuts[9] / plain:.1f}; a new evaluation cohort, unprepared: {evaluators_ms:.0f} ms",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    """Prints the times."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench selection")
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args(arguments)
    run(compare(options.clients, options.cohort, options.runs))
