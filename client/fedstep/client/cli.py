"""The command `fedstep client`."""

import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedstep.common import loop
from fedstep.common.channel import check_address
from fedstep.common.errors import InvalidInputError
from fedstep.common.handicap_options import BandwidthType, SlowdownType, StallsType
from fedstep.common.logs import concerning, log_format_option, set_up_logging
from fedstep.common.options import data_options
from fedstep.common.phrases import whole_number_of
from fedstep.common.security import Security
from fedstep.common.security_options import security_options

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from fedstep.client.agent import AgentSettings, Profile
    from fedstep.client.events import Printer
    from fedstep.client.trainer import Trainer
    from fedstep.common.task import ClientInfo


class _PartitionType(click.ParamType[tuple[int, int]]):
    """`I/N`, counted from 1, as (index, count) counted from 0."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Reads it."""
        first, _, second = str(value).partition("/")
        index, count = whole_number_of(first), whole_number_of(second)
        if index is None or count is None or not 1 <= index <= count:
            self.fail(f"{str(value)[:40]} is not a share: give I/N with I from 1 to N, such as 3/8.", param, ctx)
        return index - 1, count


@click.command()
@click.option(
    "--coordinator",
    default="127.0.0.1:7433",
    show_default=True,
    envvar="FEDSTEP_COORDINATOR",
    metavar="HOST:PORT",
    help="Whom to work for.",
)
@click.option(
    "--task", "reference", required=True, metavar="TASK", help="A built-in task, a .py file, or package.module."
)
@click.option(
    "--name", help="Unique in the fleet and stable over restarts. By default the certificate's, or the host's."
)
@click.option("--partition", type=_PartitionType(), help="Take the I-th of N shares of the task's data, such as 3/8.")
@data_options
@click.option("--device", help="cpu, cuda, cuda:N or mps. By default the best there is.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="Of training. By default bfloat16 on a GPU that can.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU cores to use. By default a fair share: those there are over the clients that run here.",
)
@click.option(
    "--slowdown",
    default=1.0,
    type=SlowdownType(),
    envvar="FEDSTEP_SLOWDOWN",
    help="Act as a slower machine: a local step and a measurement take so many times as long.",
)
@click.option(
    "--stall-every",
    "stalls",
    type=StallsType(),
    envvar="FEDSTEP_STALL_EVERY",
    help="Stand still at the end of every such time, for so long: 30s:10s works for 20 s of each 30.",
)
@click.option(
    "--bandwidth",
    default=math.inf,
    type=BandwidthType(),
    envvar="FEDSTEP_BANDWIDTH",
    help="Move models and updates no faster, each way, such as 2MiB/s.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Be away when this CSV says so of this client's name: client,away_from_s,away_until_s.",
)
@security_options
@click.option("--json", "as_json", is_flag=True, help="Write events as JSON, one a line.")
@click.option("-v", "--verbose", is_flag=True, help="Write what goes on inside, to stderr.")
@log_format_option
def client(
    coordinator: str,
    reference: str,
    name: str | None,
    partition: tuple[int, int] | None,
    options: dict[str, str],
    device: str | None,
    precision: str | None,
    threads: int | None,
    slowdown: float,
    stalls: tuple[float, float] | None,
    bandwidth: float,
    trace: Path | None,
    security: Security,
    as_json: bool,
    verbose: bool,
    log_format: str,
) -> None:
    """Trains on this machine's own data for a coordinator, until it is stopped.

    It dials out, reconnects by itself for as long as it takes, and sends models only, never data.
    """
    set_up_logging(log_format, logging.WARNING)
    if verbose:
        logging.getLogger("fedstep").setLevel(logging.DEBUG)
    check_address(coordinator)
    need_torch()
    from fedstep.client.agent import AgentSettings
    from fedstep.client.cores import take_cores
    from fedstep.client.events import Printer
    from fedstep.client.naming import default_name
    from fedstep.common.handicap import Handicap
    from fedstep.common.pauses import NEVER, Pauses
    from fedstep.common.task import ClientInfo
    from fedstep.common.trace import read_trace

    with ExitStack() as held:
        enrolled = security.pair.identity if security.pair else None
        named = name or (enrolled and enrolled.name) or default_name(partition, held)
        info = ClientInfo(named, partition, options)
        absences = NEVER
        if trace:
            of_all = read_trace(trace)
            absences = of_all.get(info.name, NEVER)
            if info.name not in of_all:
                click.echo(f"The trace {trace} does not name {info.name}, so this client is never away.", err=True)
        handicap = Handicap(slowdown, Pauses.every(*stalls) if stalls else NEVER, bandwidth, absences)
        settings = AgentSettings(handicap=handicap, security=security)
        profile, trainer = prepare(reference, info, device, precision, take_cores(threads, held))
        printer = Printer(sys.stdout, as_json)
        try:
            with concerning(client=profile.client_name):
                code, ended = loop.run(_serve(coordinator, profile, trainer, settings, printer))
        finally:
            printer.close()
    if not ended:
        _leave_at_once(code)
    sys.exit(code)


def need_torch() -> None:
    """Raises unless PyTorch is there; late: it takes over a second, which --help need not.

    Raises:
        InvalidInputError: It is not.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise InvalidInputError('A client needs PyTorch: install it with `pip install "fedstep[client]"`.') from error


def prepare(
    reference: str, info: "ClientInfo", device_name: str | None, precision: str | None, set_threads: Callable[[], None]
) -> "tuple[Profile, Trainer]":
    """Everything slow, before the event loop: the task, its data, its model.

    Args:
        reference: The task's.
        info: The client.
        device_name: As `--device` has it.
        precision: As `--precision` has it.
        set_threads: See `cores.take_cores`.

    Raises:
        InvalidInputError: One of them cannot be had; one sentence with the fix.
    """
    from fedstep.client.agent import Profile
    from fedstep.client.device import choose_bfloat16, choose_device, describe_device
    from fedstep.client.trainer import Trainer
    from fedstep.common.tasks import load_client_data, load_task

    task = load_task(reference)
    device = choose_device(device_name)
    bfloat16 = choose_bfloat16(precision, device)
    set_threads()
    trainer = Trainer(task, load_client_data(task, info), device, bfloat16=bfloat16, prepare=set_threads)
    profile = Profile(
        client_name=info.name,
        task=task.name,
        manifest=trainer.manifest(),
        train_samples=trainer.train_samples,
        validation_samples=trainer.validation_samples,
        device=describe_device(device, bfloat16),
    )
    return profile, trainer


async def _serve(
    coordinator: str, profile: "Profile", trainer: "Trainer", settings: "AgentSettings", printer: "Printer"
) -> tuple[int, bool]:
    """Serves until a signal; the exit code, and whether all work has ended."""
    from fedstep.client.agent import Agent
    from fedstep.client.events import ClientEvent

    def told(event: ClientEvent) -> None:
        printer(event)
        log.info("%s: %s", event.kind, event.text)

    agent = Agent(coordinator, profile, trainer, told, settings)
    code = 0

    def on_signal(number: int) -> None:
        nonlocal code
        code = 130 if number == signal.SIGINT else 0
        agent.stop()

    running = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":
            signal.signal(number, lambda number, frame: running.call_soon_threadsafe(on_signal, number) and None)
        else:
            running.add_signal_handler(number, on_signal, number)
    ended = await agent.run()
    printer(ClientEvent("stopped", "stopped"))
    return code, ended


def _leave_at_once(code: int) -> None:
    """Ends the process although a local step is still under way in its thread: Python would wait for torch."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
