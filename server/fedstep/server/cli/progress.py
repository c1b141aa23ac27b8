"""A study as it happens: a line an event, and a bar where there is a terminal."""

import sys
from datetime import UTC
from types import TracebackType
from typing import Any, Self

from google.protobuf import json_format
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from fedstep.common.spec_proto import spec_from_proto
from fedstep.server.cli.show import kind_style, print_json
from fedstep.server.report.progress import by_trials, rounds_of_budget
from fedstep.v1 import study_pb2


class Progress:
    """Shows the events of one study.

    Args:
        study: The study as it stands.
        as_json: Print every event as JSON instead.
        bar: Whether there is a bar, where there is a terminal.
    """

    def __init__(self, study: study_pb2.Study, as_json: bool, bar: bool = True) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        spec = spec_from_proto(study.spec)
        self._by_trials = by_trials(spec)
        budget = spec.budget
        self._left = dict.fromkeys(range(budget.trials if self._by_trials else 0), budget.rounds_per_trial)
        self._total = sum(self._left.values()) if self._by_trials else rounds_of_budget(spec)
        self._worth = Worth(small=self._by_trials)
        if bar and not as_json and self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("rounds"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
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
        if self._worth.telling(event):
            at = event.time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")
            self._console.print(f"[dim]{at}[/dim]  ", end="")
            self._console.print(event.text, style=kind_style(event.kind), markup=False)
        if self._bar is not None and self._task is not None:
            self._advance(self._bar, self._task, event)

    def _advance(self, bar: RichProgress, task: TaskID, event: study_pb2.StudyEvent) -> None:
        """Rounds done, of those still to be expected: a pruned trial's rest is not."""
        number = int(event.details.fields["trial"].number_value) if "trial" in event.details else -1
        if event.kind == "round_committed" and (not self._by_trials or self._left.get(number, 0) > 0):
            self._left[number] = self._left.get(number, 0) - 1
            bar.advance(task)
        elif event.kind in ("trial_pruned", "trial_failed") and self._total is not None and self._by_trials:
            self._total -= self._left.pop(number, 0)
            bar.update(task, total=self._total)

    def note(self, text: str) -> None:
        """Something about the watching itself."""
        print(text, file=sys.stderr, flush=True)


class Worth:
    """Which events of a study are told one by one.

    Args:
        small: Whether all are; else not those that would drown a tuner's decisions.
    """

    def __init__(self, small: bool) -> None:
        self._small = small
        self._points: dict[float, dict[str, Any]] = {}

    def telling(self, event: study_pb2.StudyEvent) -> bool:
        """Whether this one is told. It is asked of every event, in order."""
        return self._small or not (_is_small(event) or self._goes_on_unchanged(event))

    def _goes_on_unchanged(self, event: study_pb2.StudyEvent) -> bool:
        """Whether an arm begins with what the one before it was trained with: its end says enough of it."""
        if event.kind != "trial_started":
            return False
        details: dict[str, Any] = json_format.MessageToDict(event.details)
        point = self._points[details["trial"]] = details["hyperparameters"]
        parents = details.get("parents", [])
        return bool(parents) and self._points.get(parents[0]) == point


def _is_small(event: study_pb2.StudyEvent) -> bool:
    """Whether so many events of this kind come from a step-wise tuner that they would drown its decisions."""
    if event.kind == "round_committed":
        return True
    if event.kind not in ("trial_started", "trial_completed") or "rounds" not in event.details:
        return False
    return event.details.fields["rounds"].number_value <= 1  # a measurement, or an arm of one round
