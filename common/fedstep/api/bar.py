"""How far a study is, as a bar in a terminal or a notebook; plain lines where there is neither."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedstep.common.errors import UnavailableError
from fedstep.v1 import study_pb2 as pb

_WORTH_A_LINE = frozenset({"round_committed", "trial_started", "trial_completed"})
"""Kinds of events that the bar itself tells of."""


class StudyBar:
    """Rounds done, of those that the budget has where that is known, and the best value so far.

    Args:
        study: As it stands: with an event of each of its rounds to come.
    """

    def __init__(self, study: pb.Study) -> None:
        self._console = Console()
        self._objective = study.spec.objective
        self._per_trial = study.spec.budget.rounds_per_trial
        self._total = rounds_in_all(study.spec)
        self._rounds: dict[int, int] = {}
        self._counts_trials = not study.spec.budget.rounds
        self._whole_trials: set[int] = set()
        self._best: float | None = None
        self._bar = Progress(
            TextColumn(study.spec.name),
            BarColumn(),
            *(
                (MofNCompleteColumn(), TextColumn("rounds"), TimeRemainingColumn())
                if self._total
                else (TextColumn("round {task.completed}"),)
            ),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not (self._console.is_terminal or self._console.is_jupyter),
        )
        self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def event(self, event: pb.StudyEvent) -> None:
        """Takes in an event."""
        number = int(event.details.fields["trial"].number_value) if "trial" in event.details else -1
        if event.kind == "round_committed":
            self._rounds[number] = self._rounds.get(number, 0) + 1
            value = event.details.fields["value"]
            if value.WhichOneof("kind") == "number_value":
                self._take(value.number_value)
            self._bar.update(self._task, advance=1, description=self._said())
        elif event.kind == "trial_started" and "rounds" not in event.details:  # an arm says how many it has
            self._whole_trials.add(number)
        elif self._ends_early(event.kind, number) and self._total:
            self._total -= max(0, self._per_trial - self._rounds.get(number, 0))
            self._bar.update(self._task, total=self._total)
        if event.kind not in _WORTH_A_LINE:
            self._console.print(event.text, markup=False, highlight=False, soft_wrap=True)

    def lost(self, error: UnavailableError) -> None:
        """The coordinator is not to be reached, and is waited for."""
        self._console.print(f"{error.message} It is waited for.", markup=False, highlight=False, soft_wrap=True)

    def _ends_early(self, kind: str, number: int) -> bool:
        """Whether a trial's other rounds are not to come; those of an arm that ends are for others."""
        return self._counts_trials and kind in ("trial_pruned", "trial_failed") and number in self._whole_trials

    def _take(self, value: float) -> None:
        pick = max if self._objective.direction == pb.DIRECTION_MAXIMIZE else min
        self._best = value if self._best is None else pick(self._best, value)

    def _said(self) -> str:
        return "" if self._best is None else f"best {self._objective.metric} {self._best:.4f}"


def rounds_in_all(spec: pb.StudySpec) -> int | None:
    """The rounds that a study's budget has; None where the clock, the traffic or the clients tell when it is spent."""
    budget = spec.budget
    if budget.rounds:
        return budget.rounds
    if budget.client_rounds or budget.payload_bytes or budget.HasField("time"):
        return None
    return budget.trials * budget.rounds_per_trial


@contextmanager
def bytes_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar for a model on its way; gives what is to be told of the bytes that are here, and of all that there are."""
    console = Console()
    shown = console.is_terminal or console.is_jupyter
    columns = (TextColumn("model"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=None)
        yield lambda received, size: bar.update(task, completed=received, total=size)
