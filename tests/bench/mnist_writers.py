"""Forty writers of real digits, tuned by Optuna for 8 trials of 15 rounds, over twenty client processes.

python -m tests.bench mnist_writers [--data ../shared/data/mnist_by_writer.npz] [--study examples/mnist_writers.toml]

Prints the best trial and its model's accuracy on sixty writers that nobody trained on.
"""

import argparse
import tempfile
import time
from pathlib import Path

from fedstep.api.aio import connect
from fedstep.common.loop import run
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.study_file import read_study
from fedstep.server.cli.processes import Processes
from fedstep.server.cli.study import watch_to_end
from tests.bench.fleet import ROOT

CLIENTS = 20
WRITERS = 40


def main(arguments: list[str]) -> None:
    """Runs the study to its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench mnist_writers")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist_by_writer.npz")
    parser.add_argument("--study", type=Path, default=ROOT / "examples" / "mnist_writers.toml")
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        print(f"passed over: {options.data} is no file; give the data with --data")
        return
    spec = read_study(options.study)
    of_the_task = ["--data", str(options.data), "--option", f"writers={WRITERS}"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder) / "logs") as processes:
        address = processes.start_coordinator(["--port", "0", "--data-dir", folder, *of_the_task])
        for number in range(1, CLIENTS + 1):
            arguments_of_client = ["--coordinator", address, "--task", spec.task, "--partition", f"{number}/{CLIENTS}"]
            processes.start_client(f"writers-{number}", [*arguments_of_client, "--threads", "1", *of_the_task])

        async def study() -> None:
            async with connect(address) as remote:
                await remote.create(spec_to_proto(spec))
                await watch_to_end(remote, spec.name, as_json=False)

        run(study())
    print(f"{time.monotonic() - started:.0f} s in all")
