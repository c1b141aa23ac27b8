"""A study as it happens: a line an event, and a bar where there is a terminal."""

import sys
from datetime import UTC
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from fedstep.server.cli.show import print_json
from fedstep.v1 import study_pb2

_MARKS = {
    "round_committed": "dim",
    "trial_started": "cyan",
    "trial_completed": "green",
    "trial_pruned": "yellow",
    "trial_failed": "red",
    "study_completed": "bold green",
    "study_failed": "bold red",
}


class Progress:
    """Shows the events of one study.

    Args:
        study: The study as it stands.
        as_json: Print every event as JSON instead.
    """

    def __init__(self, study: study_pb2.Study, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        budget = study.spec.budget
        self._rounds_per_trial = budget.rounds_per_trial
        self._left = dict.fromkeys(range(budget.trials), budget.rounds_per_trial)
        self._total = budget.trials * budget.rounds_per_trial
        if not as_json and self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("rounds"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: study_pb2.StudyEvent) -> None:
        """Shows one event."""
        if self._as_json:
            print_json(event)
            return
        at = event.time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")
        self._console.print(f"[dim]{at}[/dim]  ", end="")
        self._console.print(event.text, style=_MARKS.get(event.kind, ""), markup=False)
        if self._bar is not None and self._task is not None:
            self._advance(self._bar, self._task, event)

    def _advance(self, bar: RichProgress, task: TaskID, event: study_pb2.StudyEvent) -> None:
        """Rounds done, of those still to be expected: a pruned trial's rest is not."""
        number = int(event.details.fields["trial"].number_value) if "trial" in event.details else -1
        if event.kind == "round_committed" and self._left.get(number, 0) > 0:
            self._left[number] -= 1
            bar.advance(task)
        elif event.kind in ("trial_pruned", "trial_failed"):
            self._total -= self._left.pop(number, 0)
            bar.update(task, total=self._total)

    def note(self, text: str) -> None:
        """Something about the watching itself."""
        print(text, file=sys.stderr, flush=True)
