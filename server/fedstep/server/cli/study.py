"""`fedstep study`: run, watch and read studies."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
from rich.console import Console

from fedstep.api.aio import AsyncFedstep, connect
from fedstep.api.calls import ENDED
from fedstep.api.waiting import Patience
from fedstep.common.channel import Endpoint
from fedstep.common.errors import InvalidInputError, UnavailableError
from fedstep.common.loop import run as run_loop
from fedstep.common.spec_proto import spec_to_proto
from fedstep.common.study_file import locate, read_study
from fedstep.server.cli.cost import print_cost
from fedstep.server.cli.explain import explain
from fedstep.server.cli.export import STEP_COLUMNS, export, step_rows
from fedstep.server.cli.live.watch import can_draw, watch_live
from fedstep.server.cli.new import write_new
from fedstep.server.cli.participation import print_participation
from fedstep.server.cli.progress import Progress
from fedstep.server.cli.show import (
    as_json_value,
    coordinator_option,
    counts,
    enum_word,
    json_option,
    number,
    plain_option,
    print_json,
    print_study,
    print_table,
    print_trials,
)
from fedstep.v1 import study_pb2

EXIT_NOT_COMPLETED = 1
START_S = 20.0
"""How long a coordinator is waited for that may have been started a moment ago."""
HINT = "Ctrl-C stops watching; the study goes on."


@click.group()
def study() -> None:
    """Run studies, watch them and read what they found."""


@study.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", help="The study's name.  [default: the file's, without .toml]")
@click.option("--task", default="digits", show_default=True, help="The name of what is trained, and on which data.")
def new(file: Path, name: str | None, task: str) -> None:
    """Write a study file to begin with: every table, a remark on every line.

    Change FILE, then: fedstep study run FILE
    """
    write_new(file, name or file.stem, task)
    print(f"{file} describes a study. Change what you like, then: fedstep study run {file}")


@study.command()
@click.argument("file", type=click.Path(dir_okay=False))
@coordinator_option
@click.option("--detach", is_flag=True, help="Start the study and return at once.")
@plain_option
@json_option
def run(file: str, coordinator: Endpoint, detach: bool, plain: bool, as_json: bool) -> None:
    """Start the study that FILE describes, and watch it to its end.

    The same file again goes on with the study, or shows its result. Ctrl-C stops watching; the study goes on.
    A file to begin with, and what can stand in it: fedstep study new FILE
    """
    spec = read_study(file)

    async def start(remote: AsyncFedstep) -> None:
        try:
            created = await create(remote, spec_to_proto(spec))
        except InvalidInputError as error:
            raise InvalidInputError(locate(file, error.violations) or error.message) from None
        if detach:
            print_json(created) if as_json else print(f"Study {spec.name} is under way at {coordinator}.")
        else:
            over = created.HasField("result")  # it ran before: only the result is news
            if over:
                await show_result(remote, spec.name, as_json)
            else:
                await watch_to_end(remote, spec.name, as_json, plain)

    _call(coordinator, start, spec.name)


@study.command()
@click.argument("name")
@coordinator_option
@click.option("--after", default=0, type=click.IntRange(0, 2**63 - 1), help="Show only events with a greater number.")
@plain_option
@json_option
def watch(name: str, coordinator: Endpoint, after: int, plain: bool, as_json: bool) -> None:
    """Watch a study to its end. Ctrl-C stops watching; the study goes on.

    On a terminal: who is there, what each client does now, losses, trials or arms, what is spent and left.
    """
    _call(coordinator, lambda remote: watch_to_end(remote, name, as_json, plain, after), name)


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def show(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """A study as it stands: state, best hyper-parameters, result, and whose training was taken."""

    async def one(remote: AsyncFedstep) -> None:
        found, told = await remote.get(name), await remote.participation(name)
        if as_json:
            print_json({**as_json_value(found), "participation": as_json_value(told)})
            return
        print_study(found)
        print_participation(told)

    _call(coordinator, one)


@study.command(name="list")
@coordinator_option
@json_option
def list_studies(coordinator: Endpoint, as_json: bool) -> None:
    """All studies of a coordinator."""

    async def every(remote: AsyncFedstep) -> None:
        found = [one async for one in remote.studies()]
        if as_json:
            for one in found:
                print_json(one)
            return
        print_table(
            ["study", "state", "task", "tuner", "trials", "rounds", "best"],
            (
                [
                    one.spec.name,
                    enum_word(one.state, study_pb2.StudyState),
                    one.spec.task,
                    one.spec.tuner.name,
                    *counts(one),
                    number(one.best_trial.value if one.HasField("best_trial") else None),
                ]
                for one in found
            ),
            f"No studies at {coordinator} yet: start one with `fedstep study run study.toml`.",
        )

    _call(coordinator, every)


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def trials(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """A study's trials: hyper-parameters, rounds, values."""

    async def every(remote: AsyncFedstep) -> None:
        found = [one async for one in remote.trials(name)]
        if as_json:
            for one in found:
                print_json(one)
            return
        print_trials(name, found)

    _call(coordinator, every)


@study.command(name="explain")
@click.argument("name")
@coordinator_option
@json_option
def explain_study(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """Every decision with its evidence, and the schedule that made the model.

    With --json, a `decision` or a `stretch` of the schedule a line.
    """
    _call(coordinator, lambda remote: explain(remote, name, as_json))


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def cost(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """What a study has cost: by what it was for, by client, and what tuning added."""

    async def one(remote: AsyncFedstep) -> None:
        found = await remote.cost(name)
        print_json(found) if as_json else print_cost(name, found)

    _call(coordinator, one)


@study.command(name="report")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write to.  [default: fedstep-reports/NAME]",
)
@coordinator_option
@json_option
def report_study(name: str, out: Path | None, coordinator: Endpoint, as_json: bool) -> None:
    """Write a report: one HTML file that needs nothing else, and its charts as PNG.

    The result, how it was found, what it cost, who took part, and what it takes to make it again. Of a study under
    way it tells what there is so far.
    """
    from fedstep.server.cli.report import report  # matplotlib and Optuna take a second to load

    _call(coordinator, lambda remote: report(remote, name, out, as_json))


@study.command()
@click.argument("name")
@click.option("--trial", type=click.IntRange(0, 2**31 - 1), help="Only this trial.")
@click.option("--round", "round_", type=click.IntRange(0, 2**31 - 1), help="Only this round.")
@click.option("--client", default="", help="Only this client.")
@coordinator_option
@json_option
def steps(name: str, trial: int | None, round_: int | None, client: str, coordinator: Endpoint, as_json: bool) -> None:
    """Every local step that clients reported: loss, samples, milliseconds.

    As CSV, a step a line; with --json, an assignment a line.
    """
    request = study_pb2.ListStepsRequest(study=name, trial=trial, round=round_, client_name=client)

    async def every(remote: AsyncFedstep) -> None:
        if not as_json:
            print(",".join(STEP_COLUMNS))
        found = False
        async for one in remote.steps(request):
            found = True
            if as_json:
                print_json(one)
                continue
            print("\n".join(",".join(map(str, row)) for row in step_rows(one)))
        if not found:
            hint = f"trials and rounds count from 0 here, and `fedstep study trials {name}` lists trials."
            print(f"No local step was reported there: {hint}", file=sys.stderr)

    _call(coordinator, every)


@study.command(name="export")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write into: a new one, or an empty one.  [default: NAME-export]",
)
@click.option("--csv", "as_csv", is_flag=True, help="Tables as CSV, in place of JSON Lines.")
@coordinator_option
@json_option
def export_study(name: str, output: Path | None, as_csv: bool, coordinator: Endpoint, as_json: bool) -> None:
    """Write everything that is known of a study into a folder.

    Its specification, its state, its trials, its events, every local step, and who took part.
    """
    folder = output or Path(f"{name}-export")

    async def write(fedstep: AsyncFedstep) -> None:
        files = await export(fedstep, name, folder, as_csv)
        if as_json:
            print_json({"folder": str(folder), "files": [file.name for file in files]})
        else:
            print(f"{folder}: {', '.join(file.name for file in files)}.")

    _call(coordinator, write)


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def pause(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """Have a study stand still after the rounds under way.

    Its clients are free for others, its models are kept, and it stays paused when the coordinator is started again.
    `fedstep study resume` goes on with it.
    """

    async def one(fedstep: AsyncFedstep) -> None:
        found = await fedstep.pause(name)
        state = enum_word(found.state, study_pb2.StudyState)
        rest = ": the rounds under way are finished first" if found.state == study_pb2.STUDY_STATE_PAUSING else ""
        print_json(found) if as_json else print(f"Study {name} is {state}{rest}. Go on: fedstep study resume {name}.")

    _call(coordinator, one)


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def resume(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """Go on with a study that is paused, or was interrupted for want of clients."""

    async def one(fedstep: AsyncFedstep) -> None:
        found = await fedstep.resume(name)
        print_json(found) if as_json else print(f"Study {name} goes on. Watch it: fedstep study watch {name}.")

    _call(coordinator, one)


@study.command()
@click.argument("name")
@coordinator_option
@json_option
def stop(name: str, coordinator: Endpoint, as_json: bool) -> None:
    """End a study after the rounds under way; what it found so far is kept."""

    async def one(remote: AsyncFedstep) -> None:
        found = await remote.stop(name)
        state = enum_word(found.state, study_pb2.StudyState)
        print_json(found) if as_json else print(f"Study {name} is {state}.")

    _call(coordinator, one)


async def create(remote: AsyncFedstep, spec: study_pb2.StudySpec) -> study_pb2.Study:
    """Starts a study with a coordinator that may itself be starting yet.

    Raises:
        UnavailableError: Nobody answers for START_S.
    """
    patience, until_s = Patience(), time.monotonic() + START_S
    while True:
        try:
            return await remote.create(spec)
        except UnavailableError:
            await remote.check()
            if time.monotonic() > until_s:
                raise
            if patience.fresh:
                print(f"Nobody answers at {remote.address} yet; trying for {START_S:.0f} s.", file=sys.stderr)
            await asyncio.sleep(patience.next_s())


async def watch_to_end(
    remote: AsyncFedstep, name: str, as_json: bool, plain: bool = False, after: int = 0, hint: str = HINT
) -> None:
    """Shows a study as it happens, then its result; exits 1 when it did not complete.

    Args:
        remote: Its coordinator.
        name: The study's.
        as_json: For programs.
        plain: Print lines also where there is a terminal that a picture can be drawn on.
        after: Show only events with a greater number.
        hint: What Ctrl-C does.
    """
    found = await remote.get(name)
    console = Console()
    if can_draw(console) and not (as_json or plain or found.state in ENDED):
        await watch_live(remote, found, console, hint, after)
    else:
        await _print_events(remote, found, as_json, after)
    await show_result(remote, name, as_json)


async def _print_events(remote: AsyncFedstep, found: study_pb2.Study, as_json: bool, after: int) -> None:
    with Progress(found, as_json, bar=False) as progress:

        def lost(error: UnavailableError) -> None:
            progress.note(f"Lost the coordinator at {remote.address}; waiting for it to come back.")

        async for event in remote.watch(found.spec.name, lost, after):
            progress.event(event)


async def show_result(remote: AsyncFedstep, name: str, as_json: bool) -> None:
    """Shows how a study ended; exits 1 when it did not complete."""
    found = await remote.get(name)
    print_json(found) if as_json else print_study(found)
    if found.state not in (study_pb2.STUDY_STATE_COMPLETED, study_pb2.STUDY_STATE_STOPPED):
        sys.exit(EXIT_NOT_COMPLETED)


def _call(coordinator: Endpoint, work: Callable[[AsyncFedstep], Awaitable[None]], watched: str = "") -> None:
    """Runs a coroutine with a coordinator; Ctrl-C while watching says how to go on."""

    async def with_remote() -> None:
        async with connect(coordinator.address, coordinator.security) as remote:
            await work(remote)

    try:
        run_loop(with_remote())
    except KeyboardInterrupt:
        if watched:
            print(
                f"\nStudy {watched} goes on without being watched. Watch it again: fedstep study watch {watched}; "
                f"end it: fedstep study stop {watched}.",
                file=sys.stderr,
            )
        raise
