"""How commands print: lines and tables for people, JSON for programs."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from fedstep.common import hyperparameters as hp
from fedstep.v1 import study_pb2

coordinator_option = click.option(
    "--coordinator",
    "address",
    metavar="HOST:PORT",
    default="127.0.0.1:7433",
    show_default=True,
    envvar="FEDSTEP_COORDINATOR",
    help="The coordinator's address.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs.")


def print_json(message: Message | dict[str, Any]) -> None:
    """One object a line."""
    value = (
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        if isinstance(message, Message)
        else message
    )
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """A table, or one line when it would be empty."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=500)  # a program reads it: nothing is cut
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console.print(table if table.row_count else empty)


def enum_word(number: int, names: Any) -> str:
    """An enum's value in a word, such as "running"."""
    name: str = names.Name(number)
    return name.split("STATE_", 1)[-1].replace("_", " ").lower()


def number(value: float | None, digits: int = 4) -> str:
    """A number in a table."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def hyperparameters_text(trial: study_pb2.Trial) -> str:
    """A trial's hyper-parameters in one line."""
    values = hp.map_from_proto(trial.hyperparameters)
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sorted(values.items())
    )


def print_study(study: study_pb2.Study) -> None:
    """A study on a few lines."""
    console = Console(highlight=False, soft_wrap=True)
    state = enum_word(study.state, study_pb2.StudyState)
    spec = study.spec
    console.print(f"[bold]{spec.name}[/bold]: {state}; task {spec.task}, tuner {spec.tuner.name}", end="")
    console.print(f"; {study.trials_finished} of {spec.budget.trials} trials, {study.rounds_committed} rounds")
    if study.message:
        console.print(f"  why: {study.message}", markup=False)
    if study.HasField("best_trial"):
        best = study.best_trial
        console.print("\nBest hyper-parameters", f"(trial {best.number}):")
        for name, value in sorted(hp.map_from_proto(best.hyperparameters).items()):
            console.print(f"  {name:<18}", f"{value:.6g}" if isinstance(value, float) else str(value), markup=False)
    if study.HasField("result"):
        result = study.result
        where = "held-out data" if result.held_out else "the evaluation cohort"
        console.print(f"\nFinal model on {where}:")
        for name, metric in sorted(result.metrics.items()):
            console.print(f"  {name:<18}", f"{metric:.4f}")
        console.print("")
        for label, path in (
            ("study database", result.database_url.removeprefix("sqlite:///")),
            ("model", result.model_path),
            ("picture", result.picture_path or "could not be drawn; the coordinator's log says why"),
        ):
            console.print(f"{label:<15}", path, markup=False)
