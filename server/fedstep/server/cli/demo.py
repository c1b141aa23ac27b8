"""`fedstep demo`: all of it on one machine. Its own study takes about a minute; it takes any other, too."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from shlex import join
from types import FrameType

import click
from rich.console import Console

from fedstep.api.aio import connect
from fedstep.common.errors import InvalidInputError, StorageError, UnavailableError
from fedstep.common.loop import run as run_loop
from fedstep.common.options import data_options
from fedstep.common.phrases import count_text
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.study_file import read_study
from fedstep.server.cli.processes import Processes
from fedstep.server.cli.show import json_option, plain_option
from fedstep.server.cli.study import watch_to_end

_CLIENTS = 8
_MINDED_S = 1.0
"""How often it is looked whether clients still run."""
_HINT = "Ctrl-C ends all of it; what is done is kept, and how to go on is said."


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--clients", default=_CLIENTS, show_default=True, type=click.IntRange(1, 64), help="Client processes.")
@click.option("--task", default="", metavar="FILE|MODULE", help="A task of your own that the study names.")
@data_options
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything goes; an interrupted demo in it goes on.  [default: a new folder in fedstep-runs]",
)
@plain_option
@json_option
def demo(
    file: Path | None,
    clients: int,
    task: str,
    options: dict[str, str],
    data_dir: Path | None,
    plain: bool,
    as_json: bool,
) -> None:
    """Tune and train on handwritten digits: a coordinator and eight client processes on this machine.

    Ends by itself in about a minute and leaves nothing running. With FILE, the study that it describes instead.
    """
    started = time.monotonic()
    folder = data_dir or Path("fedstep-runs") / datetime.now().strftime("demo-%Y%m%d-%H%M%S")
    study_file = file or folder / "study.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file is None and not study_file.exists():
            study_file.write_text(files("fedstep.server.cli").joinpath("demo.toml").read_text())
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be made or written to ({(error.strerror or str(error)).lower()}): "
            "give another with --data-dir."
        ) from error
    spec = read_study(study_file)
    if clients < spec.round.min_clients:
        raise InvalidInputError(
            f"--clients {clients} is fewer than the {spec.round.min_clients} that {study_file} waits for: "
            "give more, or a smaller min_clients there."
        )
    own_task = ["--task", task] if task else []
    of_the_task = [word for pair in options.items() for word in ("--option", "=".join(pair))]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _interrupt)  # the children have sessions of their own and would stay
    try:
        with Processes(folder / "logs") as processes:
            them = count_text(clients, "client")
            _say(f"Starting a coordinator and {them}; their logs: {folder / 'logs'}", as_json)
            with _waiting("The coordinator starts; that takes a few seconds.", as_json):
                address = processes.start_coordinator(
                    ["--port", "0", "--data-dir", str(folder), *own_task, *of_the_task]
                )
            for number in range(1, clients + 1):
                processes.start_client(
                    f"client-{number}",
                    [
                        *("--coordinator", address, "--task", task or spec.task),
                        *("--partition", f"{number}/{clients}", "--threads", "1"),
                        *of_the_task,
                    ],
                )

            async def run() -> None:
                async with connect(address) as remote, _minded(processes, clients - max(spec.round.min_clients, 1)):
                    await remote.create(spec_to_proto(spec))
                    await watch_to_end(remote, spec.name, as_json, plain, hint=_HINT)

            run_loop(run())
    except KeyboardInterrupt:
        words = ["fedstep", "demo", *([] if file is None else [str(file)]), "--data-dir", str(folder)]
        again = join([*words, *([] if clients == _CLIENTS else ["--clients", str(clients)]), *own_task, *of_the_task])
        print(f"\nInterrupted; what is done is kept. To go on: {again}", file=sys.stderr)
        raise
    _say(f"\nThe whole {'demo' if file is None else 'study'} took {time.monotonic() - started:.0f} s.", as_json)


@asynccontextmanager
async def _minded(processes: Processes, spare: int) -> AsyncIterator[None]:
    """Ends the block where clients have ended that nobody will start again, instead of waiting for them.

    Args:
        processes: The children.
        spare: So many clients the study can do without.

    Raises:
        UnavailableError: More have ended; with what the first of them said.
    """
    block = asyncio.current_task()
    ended: list[str] = []

    async def mind() -> None:
        while len(ended) <= spare:
            await asyncio.sleep(_MINDED_S)
            ended[:] = processes.ended_clients()
        assert block is not None
        block.cancel()

    minding = asyncio.create_task(mind())
    try:
        yield
    except asyncio.CancelledError:
        if len(ended) <= spare:
            raise
        which = count_text(len(ended), "client")
        raise UnavailableError(f"{which} ended: {ended[0]}: {processes.last_words(ended[0])}") from None
    finally:
        minding.cancel()


def _waiting(text: str, as_json: bool) -> AbstractContextManager[object]:
    """Says on a terminal what is waited for."""
    console = Console(stderr=True)
    return nullcontext() if as_json or not console.is_terminal else console.status(text)


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        print(text, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """As Ctrl-C, which the event loop answers in order; an error raised from here would crash a call into gRPC."""
    signal.raise_signal(signal.SIGINT)
