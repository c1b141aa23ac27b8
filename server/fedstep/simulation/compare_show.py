"""Carries a comparison out before the eyes of a person, and reports it."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from fedstep.common.errors import StorageError
from fedstep.server.cli.live.marks import seconds_text
from fedstep.server.cli.show import print_json
from fedstep.simulation.compare import Comparison, parts_of, run_comparison, setting_of, write_report
from fedstep.simulation.outcome import Journal, Outcome
from fedstep.simulation.remaining import remaining_s
from fedstep.simulation.tables import Part, as_records, markdown, print_parts


@dataclass(frozen=True)
class Report:
    """How a comparison is reported.

    Attributes:
        folder: Keeps every outcome; tables and pictures are written there.
        page: Another file for the table in Markdown; None for none.
        target: What counts as reached; None for 95 % of the best that anyone reaches.
        at: Rounds spent at which the curves are read as well.
        log_x: Draws the curves over logarithmic axes.
    """

    folder: Path
    page: Path | None
    target: float | None
    at: Sequence[int]
    log_x: bool


def carry_on(comparison: Comparison, report: Report, jobs: int | None, as_json: bool) -> None:
    """Does what is missing of a comparison, and writes and prints its tables.

    Args:
        comparison: What is compared.
        report: Where to and how.
        jobs: Processes; None for one a core.
        as_json: Print JSON, one object a line.

    Raises:
        FedstepError: It cannot be run; what ended before is kept.
    """
    comparison.check()
    console = Console(highlight=False, soft_wrap=True)
    with Journal(report.folder, setting_of(comparison)) as journal:
        processes = jobs or os.cpu_count() or 1
        show = _Show(comparison, journal, console, as_json, processes)
        try:
            with show.bar:
                show.ahead()
                run_comparison(comparison, journal, processes, show.outcome)
        except KeyboardInterrupt:
            done, wanted = show.counts()
            again = shlex.join(["fedstep", *sys.argv[1:]])
            print(f"\nInterrupted; {done} of {wanted} studies are kept. To go on: {again}", file=sys.stderr)
            raise
        parts = parts_of(comparison, journal, report.target, report.at)
        files = _written(comparison, journal, parts, report)
    if as_json:
        print_json({"event": "table", "rows": as_records(parts), "files": [str(path) for path in files]})
        return
    print_parts(parts, comparison.study.objective, console if console.is_terminal else Console(width=500))
    console.print(f"Written to {report.folder}: {', '.join(path.name for path in files)}", markup=False)


class _Left(ProgressColumn):
    """How long the rest will take, from one outcome to the next a second less every second."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        ends_at: float | None = task.fields["ends_at"]
        if ends_at is None:
            return Text("left: known after the first study", "bright_black")
        return Text(f"about {seconds_text(max(0.0, ends_at - time.monotonic()))} left")


class _Show:
    """Tells of every outcome as it comes.

    Args:
        comparison: What is compared.
        journal: What there is.
        console: Where to.
        as_json: Print JSON.
        processes: Studies that run at the same time.

    Attributes:
        bar: How many studies are done, where there is a terminal.
    """

    def __init__(
        self, comparison: Comparison, journal: Journal, console: Console, as_json: bool, processes: int
    ) -> None:
        self.comparison = comparison
        self.journal = journal
        self.console = console
        self.as_json = as_json
        self.bar = RichProgress(
            TextColumn("studies"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(),
            console=console,
            transient=True,
            disable=as_json or not console.is_terminal,
        )
        self._processes = processes
        self._row = self.bar.add_task("", total=None, ends_at=None)

    def ahead(self) -> None:
        """Brings the bar up to date."""
        done, wanted = self.counts()
        outcomes = self.journal.outcomes
        missing = [key for key in self.comparison.every_key() if self.comparison.found(key, outcomes) is None]
        left_s = remaining_s(missing, [*outcomes.values()], self._processes)
        ends_at = None if left_s is None else time.monotonic() + left_s
        self.bar.update(self._row, completed=done, total=wanted, ends_at=ends_at)

    def counts(self) -> tuple[int, int]:
        """Studies that are done, and all."""
        keys = self.comparison.every_key()
        done = [key for key in keys if self.comparison.found(key, self.journal.outcomes) is not None]
        return len(done), len(keys)

    def outcome(self, outcome: Outcome) -> None:
        """One line."""
        if self.as_json:
            print_json({"event": "outcome", **outcome.model_dump(mode="json", exclude={"curve"})})
            return
        self.ahead()
        done, wanted = self.counts()
        key, metric = outcome.key, self.comparison.study.objective.metric
        again = ", trained again" if key.protocol == "retrained" else ""
        note = f" ({outcome.note})" if outcome.note else ""
        self.console.print(
            f"{done:>4} of {wanted}  {key.tuner}, seed {key.seed}, {key.budget} rounds{again}: "
            f"{metric} {outcome.value:.4f} in {outcome.wall_s:.0f} s{note}",
            markup=False,
        )


def _written(comparison: Comparison, journal: Journal, parts: Sequence[Part], report: Report) -> list[Path]:
    try:
        files = write_report(report.folder, comparison, journal, parts, report.log_x)
        if report.page is not None:
            report.page.write_text(markdown(parts, comparison.study.objective))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        where = error.filename or report.folder
        raise StorageError(f"{where} cannot be written ({reason}): give another path.") from error
    return files
