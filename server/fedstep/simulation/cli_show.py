"""A simulated study on the terminal: as `fedstep study run` shows one of a coordinator's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress as RichProgress

from fedstep.common.spec import StudySpec
from fedstep.server.api import convert
from fedstep.server.cli.progress import Progress
from fedstep.server.cli.show import print_json, print_study
from fedstep.server.cli.study import EXIT_NOT_COMPLETED
from fedstep.server.coordination.studies import StudyView
from fedstep.server.storage.base import Event, StudyRecord, StudyState
from fedstep.simulation.run import Simulated

_NOT_KEPT = "not written; give --out FOLDER to keep it"


@contextmanager
def counting(text: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal, with an estimate of the time left.

    Args:
        text: What is counted.
        total: How many there will be.
        quiet: No bar, not even there.

    Yields:
        What to call with how many there are.
    """
    console = Console(stderr=True)
    with RichProgress(console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        row = progress.add_task(text, total=total)
        yield lambda there: progress.update(row, completed=there)


class Show:
    """Shows the events of a simulated study, and its result.

    Args:
        spec: The study.
        as_json: Print JSON instead, one object a line.
    """

    def __init__(self, spec: StudySpec, as_json: bool) -> None:
        self._as_json = as_json
        now = datetime.now(UTC)
        record = StudyRecord(spec, StudyState.RUNNING, now, now)
        self._progress = Progress(convert.study(StudyView(record, [], None), ""), as_json)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def event(self, event: Event) -> None:
        """Shows one event."""
        self._progress.event(convert.event(event))

    def result(self, found: Simulated) -> int:
        """Shows how the study ended; answers with the command's exit code."""
        record = found.record
        if record.result is not None and not self._as_json:
            result = record.result
            model, picture = result.model_path or _NOT_KEPT, result.picture_path or _NOT_KEPT
            told = replace(result, model_path=model, picture_path=picture, report_path=result.report_path or _NOT_KEPT)
            record = replace(record, result=told)
        database = "" if self._as_json else "in memory, gone with the simulation"
        study = convert.study(StudyView(record, found.trials, found.best), database)
        if self._as_json:
            print_json(study)
            print_json({"virtual_seconds": found.virtual_s, "wall_seconds": found.wall_s, "rounds": len(found.rounds)})
        else:
            print_study(study, explained=False)
            rounds = len(found.rounds)
            print(f"\n{rounds} rounds, {found.virtual_s:,.0f} virtual seconds, simulated in {found.wall_s:.1f} s.")
        ended_well = record.state in (StudyState.COMPLETED, StudyState.STOPPED)
        return 0 if ended_well else EXIT_NOT_COMPLETED
