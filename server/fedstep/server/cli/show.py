"""How commands print: lines and tables for people, JSON for programs."""

import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedstep.common import hyperparameters as hp
from fedstep.common.channel import Endpoint
from fedstep.common.security import Security
from fedstep.common.security_options import security_options
from fedstep.common.spec_proto import spec_from_proto
from fedstep.server.cli.records import trial_records
from fedstep.server.report.decisions import is_decision
from fedstep.server.report.progress import by_trials, progress_text, rounds_of_budget
from fedstep.v1 import study_pb2

_STYLES = {
    "round_committed": "dim",
    "trial_started": "cyan",
    "trial_completed": "green",
    "trial_pruned": "yellow",
    "trial_failed": "red",
    "study_completed": "bold green",
    "study_failed": "bold red",
    "adoption": "bold green",
    "rejection": "yellow",
    "elimination": "yellow",
    "rewind": "bold red",
    "delivery": "bold green",
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs.")

plain_option = click.option("--plain", is_flag=True, help="Print a line an event, also where there is a terminal.")


def coordinator_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--coordinator` and what says how it is reached safely; it gets all as one `coordinator`."""

    @click.option(
        "--coordinator",
        "address",
        metavar="HOST:PORT",
        default="127.0.0.1:7433",
        show_default=True,
        envvar="FEDSTEP_COORDINATOR",
        help="The coordinator's address.",
    )
    @security_options
    @functools.wraps(command)
    def with_coordinator(address: str, security: Security, **others: Any) -> Any:
        return command(coordinator=Endpoint(address, security), **others)

    return with_coordinator


def print_json(message: Message | dict[str, Any]) -> None:
    """One object a line."""
    value = as_json_value(message) if isinstance(message, Message) else message
    print(json.dumps(value, ensure_ascii=False), flush=True)


def as_json_value(message: Message) -> dict[str, Any]:
    """A message for programs, with the names of the protocol."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], empty: str) -> None:
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


def title_of(study: study_pb2.Study) -> Text:
    """A study in one line: its name, state, task, tuner and how far it is."""
    spec = study.spec
    state = enum_word(study.state, study_pb2.StudyState)
    how_far = progress_text(spec_from_proto(spec), study.trials_finished, study.rounds_committed)
    return Text.assemble((spec.name, "bold"), f": {state}; task {spec.task}, tuner {spec.tuner.name}; {how_far}")


def counts(study: study_pb2.Study) -> tuple[str, str]:
    """Trials and rounds so far, of those that there are to be, where that is known."""
    spec = spec_from_proto(study.spec)
    if by_trials(spec):
        return f"{study.trials_finished}/{spec.budget.trials}", str(study.rounds_committed)
    total = rounds_of_budget(spec)
    return str(study.trials_finished), str(study.rounds_committed) + (f"/{total}" if total else "")


def print_trials(name: str, trials: Sequence[study_pb2.Trial]) -> None:
    """A study's trials; for arms of a step-wise tuner also what they are for and what they go on from."""
    of_arms = any(trial.parents or trial.phase for trial in trials)
    records = trial_records(trials)
    rows = []
    for one in trials:
        state = enum_word(one.state, study_pb2.TrialState)
        value = number(one.value if one.HasField("value") else None)
        head, rounds = [str(one.number)], str(one.rounds)
        if of_arms:
            first = records[one.number].first_round
            head += [one.phase or "–", "+".join(map(str, one.parents)) or "–"]
            rounds = f"{first + 1}–{first + one.rounds}" if one.rounds else f"at {first}"
        rows.append([*head, state, rounds, value, hyperparameters_text(one)])
    headings = ["trial", *(["phase", "from"] if of_arms else []), "state", "rounds", "value", "hyper-parameters"]
    print_table(headings, rows, f"Study {name} has no trials yet.")


def kind_style(kind: str) -> str:
    """How an event of that kind is coloured."""
    return _STYLES.get(kind, "magenta" if is_decision(kind) else "")


def print_study(study: study_pb2.Study, explained: bool = True) -> None:
    """A study on a few lines.

    Args:
        study: The study.
        explained: Whether there is a coordinator that can explain it.
    """
    console = Console(highlight=False, soft_wrap=True)
    spec = study.spec
    console.print(title_of(study))
    if study.message:
        console.print(f"  why: {study.message}", markup=False)
    if study.HasField("best_trial"):
        best = study.best_trial
        console.print("\nBest hyper-parameters", f"(trial {best.number}):")
        for name, value in sorted(hp.map_from_proto(best.hyperparameters).items()):
            console.print(f"  {name:<18}", f"{value:.6g}" if isinstance(value, float) else str(value), markup=False)
        if best.parents and explained:
            console.print(f"Its model is made of more arms than one: fedstep study explain {spec.name}")
    if study.HasField("result"):
        result = study.result
        where = "held-out data" if result.held_out else "the evaluation cohort"
        console.print(f"\nFinal model on {where}:")
        for name, metric in sorted(result.metrics.items()):
            console.print(f"  {name:<18}", f"{metric:.4f}", markup=False)
        console.print("")
        for label, path in (
            ("study database", result.database_url.removeprefix("sqlite:///")),
            ("model", result.model_path),
            ("picture", result.picture_path or "could not be drawn; the coordinator's log says why"),
            ("report", result.report_path or "could not be written; the coordinator's log says why"),
        ):
            console.print(f"{label:<15}", path, markup=False)
