"""What watchers of a study cost the coordinator.

python -m tests.bench watchers [--watchers 50] [--rates 1,5,20] [--seconds 10]

A coordinator process commits events of the size of a round's to a study, so many a second; the watchers are in another
process, each on a connection of its own, as other people's would be. The cost is the processor time of the
coordinator's process with the watchers less that without them, in percent of one core. Every watcher has every event.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedstep.api.aio import connect
from fedstep.common.loop import run
from fedstep.common.spec import StudySpec
from fedstep.server.coordinator import Coordinator, CoordinatorConfig
from fedstep.server.storage.base import NewEvent
from tests.bench.echo import task
from tests.bench.fleet import ROOT, echo_spec

DETAILS = {
    "trial": 3,
    "round": 17,
    "value": 0.8731,
    "metrics": {"accuracy": 0.8731, "loss": 0.4127, "train_loss": 0.3921},
    "updates": 10,
    "evaluators": 20,
    "seconds": 1.73,
}
SETTLE_S = 1.0


def study() -> StudySpec:
    """One that waits for clients for five minutes: all that happens to it is what the benchmark says."""
    return echo_spec(1, 1, "watched")


async def host(rates: list[float], seconds: float) -> None:
    """A coordinator that says its address, then at a word measures each rate and says what it took."""
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(CoordinatorConfig(Path(folder), {task.name: task}, port=0))
        await coordinator.start()
        assert coordinator.studies is not None
        await coordinator.studies.create(study())
        _say({"address": coordinator.address})
        while (await asyncio.to_thread(sys.stdin.readline)).strip() == "go":
            taken = []
            for rate in rates:
                began_s, at = _cpu_s(), time.monotonic()
                for number in range(int(rate * seconds)):
                    text = "Trial 3 round 17: accuracy 0.8731, 10 updates, 1.73 s."
                    coordinator.studies.announce_soon("watched", NewEvent("round_committed", text, DETAILS))
                    await asyncio.sleep(max(0.0, at + (number + 1) / rate - time.monotonic()))
                await asyncio.sleep(SETTLE_S)
                taken.append((_cpu_s() - began_s) / (time.monotonic() - at))
            _say({"taken": taken})
        await coordinator.shut_down()


async def watch(address: str, watchers: int, events: int) -> None:
    """Watchers, each until it has had so many rounds."""

    async def one() -> None:
        found = 0
        async with connect(address) as fedstep:
            async for event in fedstep.watch("watched"):
                if event.kind == "study_started":
                    _say({"there": True})
                found += event.kind == "round_committed"
                if found == events:
                    return

    await asyncio.gather(*(one() for _ in range(watchers)))
    _say({"had": events})


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


def _program(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.watchers", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def _heard(program: subprocess.Popen[str]) -> dict[str, object]:
    assert program.stdout is not None
    found: dict[str, object] = json.loads(program.stdout.readline())
    return found


def measure(rates: list[float], seconds: float, watchers: int) -> list[float]:
    """The processor time that a coordinator takes at each rate, as a share of one core."""
    words = (",".join(map(str, rates)), str(seconds))
    with _program("host", *words) as coordinator:
        address = str(_heard(coordinator)["address"])
        events = sum(int(rate * seconds) for rate in rates)
        watching = _program("watch", address, str(watchers), str(events))
        assert coordinator.stdin is not None
        for _ in range(watchers):
            _heard(watching)  # the study's first event, by every one of them
        print("go", file=coordinator.stdin, flush=True)
        taken = _heard(coordinator)["taken"]
        assert isinstance(taken, list)
        while watchers and "had" not in _heard(watching):
            pass
        watching.wait(60)
        coordinator.stdin.close()
    return [float(one) for one in taken]


def main(arguments: list[str]) -> None:
    """Prints the cost at each rate."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench watchers")
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--rates", default="1,5,20")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    rates = [float(rate) for rate in options.rates.split(",")]
    without = measure(rates, options.seconds, 0)
    beside = measure(rates, options.seconds, options.watchers)
    print(f"{'events a second':>16}{'without':>10}{options.watchers:>6} watchers{'they cost':>12}")
    for rate, alone, watched in zip(rates, without, beside, strict=True):
        print(f"{rate:>16g}{alone:>10.2%}{watched:>15.2%}{watched - alone:>12.2%}")


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "host":
        run(host([float(rate) for rate in rest[0].split(",")], float(rest[1])))
    else:
        run(watch(rest[0], int(rest[1]), int(rest[2])))
