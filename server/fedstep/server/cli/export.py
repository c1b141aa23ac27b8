"""`fedstep study export`: everything that is known of a study, as files."""

import csv
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from fedstep.api.aio import AsyncFedstep
from fedstep.common import hyperparameters as hp
from fedstep.common.errors import InvalidInputError, StorageError
from fedstep.server.cli.show import as_json_value, enum_word
from fedstep.v1 import study_pb2

STEP_COLUMNS = ("trial", "round", "client", "attempt", "step", "loss", "samples", "step_ms")
_LEFT_OUT_COLUMNS = ("client", "asked", "taken", "missed", "work", "relative_loss")


def step_rows(answer: study_pb2.ListStepsResponse) -> Iterator[list[Any]]:
    """The local steps of an assignment as rows of a table."""
    head = [answer.trial, answer.round, answer.client_name, answer.steps.ref.attempt]
    columns = zip(answer.steps.loss, answer.steps.samples, answer.steps.step_ms, strict=True)
    for step, (loss, samples, step_ms) in enumerate(columns):
        yield [*head, step, f"{loss:.6g}", samples, f"{step_ms:.3f}"]


async def export(fedstep: AsyncFedstep, name: str, folder: Path, as_csv: bool) -> list[Path]:
    """Writes a study's specification, state, trials, events, local steps and participation.

    Args:
        fedstep: The coordinator.
        name: The study's.
        folder: Made when it is missing; must be empty.
        as_csv: Tables as CSV; else as JSON Lines.

    Returns:
        The files.

    Raises:
        InvalidInputError: There is something in the folder.
        StorageError: It cannot be written.
    """
    study = await fedstep.get(name)
    try:
        return await _export(fedstep, study, _empty(folder), as_csv)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder} cannot be written ({(error.strerror or str(error)).lower()}): "
            "give another folder with --output."
        ) from error


async def _export(fedstep: AsyncFedstep, study: study_pb2.Study, folder: Path, as_csv: bool) -> list[Path]:
    name, console = study.spec.name, Console(stderr=True)
    whole = as_json_value(study)
    told = await fedstep.participation(name)
    _write_json(folder / "spec.json", whole.pop("spec"))
    _write_json(folder / "study.json", whole)
    _write_json(folder / "participation.json", as_json_value(told))
    files = [folder / "spec.json", folder / "study.json", folder / "participation.json"]
    request = study_pb2.ListStepsRequest(study=name)
    with console.status("") as status:
        if not as_csv:
            for kind, messages in (
                ("trials", fedstep.trials(name)),
                ("events", fedstep.past_events(study)),
                ("steps", fedstep.steps(request)),
            ):
                status.update(f"Writing {kind}")
                files.append(folder / f"{kind}.jsonl")
                with files[-1].open("w", encoding="utf-8") as file:
                    async for message in messages:
                        print(json.dumps(as_json_value(message), ensure_ascii=False), file=file)
            return files
        tuned = [parameter.name for parameter in study.spec.space]
        heads: tuple[tuple[str, Sequence[str], AsyncIterator[Iterable[Any]]], ...] = (
            ("trials", _trial_columns(tuned), _trial_rows(fedstep, name, tuned)),
            ("events", ("number", "time", "kind", "text", "details"), _event_rows(fedstep, study)),
            ("steps", STEP_COLUMNS, _step_rows(fedstep, request)),
            ("left_out", _LEFT_OUT_COLUMNS, _left_out_rows(told)),
        )
        for kind, columns, rows in heads:
            status.update(f"Writing {kind}")
            files.append(folder / f"{kind}.csv")
            with files[-1].open("w", encoding="utf-8", newline="") as file:
                await _write_csv(file, columns, rows)
    return files


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder} is there already and not empty: give another folder with --output.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


async def _write_csv(file: TextIO, columns: Sequence[str], rows: AsyncIterator[Iterable[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    async for row in rows:
        writer.writerow(row)


def _trial_columns(tuned: Sequence[str]) -> list[str]:
    return ["trial", "state", "phase", "parents", "rounds", "value", "message", "values", *tuned]


async def _trial_rows(fedstep: AsyncFedstep, name: str, tuned: Sequence[str]) -> AsyncIterator[Iterable[Any]]:
    async for trial in fedstep.trials(name):
        values = hp.map_from_proto(trial.hyperparameters)
        yield [
            trial.number,
            enum_word(trial.state, study_pb2.TrialState),
            trial.phase,
            " ".join(map(str, trial.parents)),
            trial.rounds,
            trial.value if trial.HasField("value") else "",
            trial.message,
            " ".join(map(str, trial.values)),
            *(values.get(one, "") for one in tuned),
        ]


async def _event_rows(fedstep: AsyncFedstep, study: study_pb2.Study) -> AsyncIterator[Iterable[Any]]:
    async for event in fedstep.past_events(study):
        plain = as_json_value(event)
        details = json.dumps(plain["details"], ensure_ascii=False)
        yield [event.number, plain["time"], event.kind, event.text, details]


async def _step_rows(fedstep: AsyncFedstep, request: study_pb2.ListStepsRequest) -> AsyncIterator[Iterable[Any]]:
    async for answer in fedstep.steps(request):
        for row in step_rows(answer):
            yield row


async def _left_out_rows(told: study_pb2.Participation) -> AsyncIterator[Iterable[Any]]:
    for part in told.clients_left_out:
        relative = part.relative_loss if part.HasField("relative_loss") else ""
        yield [part.client_name, part.asked, part.taken, part.missed, part.work, relative]
