"""`fedstep coordinator`: the server."""

import asyncio
import contextlib
import logging
import shlex
import signal
import sys
from pathlib import Path

import click

from fedstep.common.channel import DEFAULT_PORT
from fedstep.common.logs import log_format_option, set_up_logging
from fedstep.common.loop import run as run_loop
from fedstep.common.options import data_options
from fedstep.server.cli.show import json_option, print_json

DATABASE_VARIABLES = ("FEDSTEP_DATABASE_URL", "FEDSTEP_DATABASE_PASSWORD_FILE")
"""Whoever starts a coordinator of its own leaves these out."""

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="0 for any free one."
)
@click.option(
    "--data-dir",
    default="fedstep-data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Holds the database, the models and the results.",
)
@click.option(
    "--results-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Holds the results: final models, pictures and reports.  [default: the data dir]",
)
@click.option(
    "--database",
    default="",
    metavar="URL",
    envvar=DATABASE_VARIABLES[0],
    help="An SQLAlchemy URL instead of SQLite in the data dir.",
)
@click.option(
    "--database-password-file",
    type=_FILE,
    envvar=DATABASE_VARIABLES[1],
    help="Holds the password that the URL then need not.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="FILE|MODULE",
    help="A task of your own that studies may name. Repeatable.",
)
@data_options
@click.option("--tls-cert", type=_FILE, help="The coordinator's certificate: use TLS.")
@click.option("--tls-key", type=_FILE, help="Its private key.")
@click.option("--tls-ca", type=_FILE, help="Take only callers whose certificate this CA has signed.")
@click.option("--client-token-file", type=_FILE, help="In place of --tls-ca: the clients' token.")
@click.option("--operator-token-file", type=_FILE, help="In place of --tls-ca: the operators' token.")
@click.option("--insecure", is_flag=True, help="Listen off loopback although anybody there may do everything.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve Prometheus' metrics on this port; 0 for any free one.",
)
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, help="Their address. Everybody who reaches it may read."
)
@click.option(
    "--dashboard-port",
    type=click.IntRange(0, 65535),
    help="Serve optuna-dashboard over the database on this port, for reading; 0 for any free one.",
)
@click.option(
    "--dashboard-host", default="127.0.0.1", show_default=True, help="Its address. Everybody who reaches it may read."
)
@click.option(
    "--tensorboard",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write event files for TensorBoard there.",
)
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Log everything.")
@log_format_option
def coordinator(
    host: str,
    port: int,
    data_dir: Path,
    results_dir: Path | None,
    database: str,
    database_password_file: Path | None,
    tasks: tuple[str, ...],
    options: dict[str, str],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    client_token_file: Path | None,
    operator_token_file: Path | None,
    insecure: bool,
    metrics_port: int | None,
    metrics_host: str,
    dashboard_port: int | None,
    dashboard_host: str,
    tensorboard: Path | None,
    as_json: bool,
    verbose: bool,
    log_format: str,
) -> None:
    """Host studies and aggregate what clients train.

    Started again on the same data dir, it goes on with interrupted studies from their last committed round.
    """
    from fedstep.common.tasks import available_tasks, load_task
    from fedstep.server.coordinator import Coordinator, CoordinatorConfig
    from fedstep.server.protection import read_protection
    from fedstep.server.storage.faults import parse_url, where
    from fedstep.server.storage.password import with_password

    set_up_logging(log_format, logging.INFO if verbose else logging.WARNING)
    protection = read_protection(tls_cert, tls_key, tls_ca, client_token_file, operator_token_file, insecure)
    own = [load_task(reference) for reference in tasks]
    known = {task.name: task for task in [*(load_task(name) for name in available_tasks()), *own]}
    config = CoordinatorConfig(
        folder=data_dir.resolve(),
        results_folder=results_dir.resolve() if results_dir else None,
        tasks=known,
        host=host,
        port=port,
        database_url=with_password(database, database_password_file) if database_password_file else database,
        task_options=options,
        protection=protection,
        metrics=None if metrics_port is None else (metrics_host, metrics_port),
        dashboard=None if dashboard_port is None else (dashboard_host, dashboard_port),
        tensorboard=tensorboard,
    )
    reached = protection.words(host)
    # As it was called, but for the password that the URL may hold: this is printed, and kept in logs.
    how_to_resume = shlex.join(["fedstep", *(_shown(word, database) for word in sys.argv[1:])])

    async def serve() -> None:
        server = Coordinator(config)
        resumed = await server.start()
        shown = where(parse_url(config.url))
        if as_json:
            listening = {"address": server.address, "callers": protection.callers, "database": shown}
            print_json({"event": "listening", **listening, **server.views.addresses, "resumed": resumed})
        else:
            print(f"fedstep coordinator at {server.address}{reached}; database {shown}", flush=True)
            for what, where_to in server.views.addresses.items():
                print(f"{what} at {where_to}", flush=True)
            for name in resumed:
                print(f"going on with study {name}", flush=True)
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(server.serve())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, serving.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await serving
        finally:
            interrupted = await server.shut_down()
            lag = server.parts.lag
            if as_json:
                print_json({"event": "stopped", "interrupted": interrupted, "loop_lag_ms_p99": lag.percentile_ms(0.99)})
            else:
                for name in interrupted:
                    print(f"study {name} is interrupted and committed; to go on: {how_to_resume}", flush=True)
                print(f"stopped; event loop lag p99 {lag.percentile_ms(0.99):.1f} ms", flush=True)

    run_loop(serve())


def _shown(word: str, database: str) -> str:
    from fedstep.server.storage.faults import parse_url, where

    if not database or database not in word or database.startswith("sqlite"):
        return word
    return word.replace(database, where(parse_url(database)))
