"""`fedstep demo`: all of it on one machine, in about a minute."""

import signal
import sys
import time
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from types import FrameType

import click

from fedstep.common.loop import run as run_loop
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.study_file import read_study
from fedstep.server.cli.processes import Processes
from fedstep.server.cli.remote import connect
from fedstep.server.cli.show import json_option
from fedstep.server.cli.study import watch_to_end


@click.command()
@click.option("--clients", default=8, show_default=True, type=click.IntRange(8, 64), help="Client processes.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything goes; an interrupted demo in it goes on.  [default: a new folder in fedstep-runs]",
)
@json_option
def demo(clients: int, data_dir: Path | None, as_json: bool) -> None:
    """Tune and train on handwritten digits: a coordinator and eight client processes on this machine.

    Ends by itself in about a minute and leaves nothing running.
    """
    started = time.monotonic()
    folder = data_dir or Path("fedstep-runs") / datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    study_file = folder / "study.toml"
    if not study_file.exists():
        study_file.write_text(files("fedstep.server.cli").joinpath("demo.toml").read_text())
    spec = read_study(study_file)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Processes(folder / "logs") as processes:
            _say(f"Starting a coordinator and {clients} clients; their logs: {folder / 'logs'}", as_json)
            address = processes.start_coordinator(["--port", "0", "--data-dir", str(folder)])
            for number in range(1, clients + 1):
                processes.start_client(
                    f"client-{number}",
                    [
                        *("--coordinator", address, "--task", spec.task),
                        *("--partition", f"{number}/{clients}", "--threads", "1"),
                    ],
                )

            async def run() -> None:
                async with connect(address) as remote:
                    await remote.create(spec_to_proto(spec))
                    await watch_to_end(remote, spec.name, as_json)

            run_loop(run())
    except KeyboardInterrupt:
        print(f"\nInterrupted; what is done is kept. To go on: fedstep demo --data-dir {folder}", file=sys.stderr)
        raise
    _say(f"\nThe whole demo took {time.monotonic() - started:.0f} s.", as_json)


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
