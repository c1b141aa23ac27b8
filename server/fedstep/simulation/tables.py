"""The table of a comparison: on a screen, as Markdown, as CSV and as JSON."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedstep.common.spec import Objective
from fedstep.simulation.outcome import Protocol
from fedstep.simulation.statistics import Difference, Row

_NONE = "–"


@dataclass(frozen=True)
class Part:
    """One table: a budget and a protocol.

    Attributes:
        budget: In rounds.
        protocol: What was measured.
        target: What counts as reached; None where that was not asked.
        rows: One for every tuner.
    """

    budget: int
    protocol: Protocol
    target: float | None
    rows: Sequence[Row]

    def title(self, objective: Objective) -> str:
        """What the table shows, in one line."""
        if self.protocol == "retrained":
            return f"{self.budget} rounds: {objective.metric} of what was found, trained again from scratch"
        return f"{self.budget} rounds: {objective.metric} of the model delivered"


def overview(parts: Sequence[Part]) -> list[list[str]]:
    """Headings, then a line for every tuner, with a column for every budget: mean ± standard error (worst seed)."""
    tuners = list(dict.fromkeys(row.tuner for part in parts for row in part.rows))
    lines = [["tuner", *(_column(part) for part in parts)]]
    for tuner in tuners:
        cells = [{row.tuner: row for row in part.rows}.get(tuner) for part in parts]
        lines.append(
            [tuner, *(f"{_mean(row.mean, row.error)} ({_figure(row.worst)})" if row else _NONE for row in cells)]
        )
    return lines


def details(part: Part) -> list[list[str]]:
    """Headings, then a line for every tuner with all there is to one budget."""
    timed = part.protocol == "delivered" and part.target is not None
    midway = list(dict.fromkeys(rounds for row in part.rows for rounds in row.midway))
    headings = ["tuner", "seeds", *(f"at {rounds}" for rounds in midway), "mean", "worst", "best"]
    if timed:
        headings += ["reached", "rounds", "seconds"]
    lines = [[*headings, "difference", "95 % interval", "p (Wilcoxon)", "p (t)"]]
    for row in part.rows:
        line = [row.tuner, str(row.seeds), *(_mean(*row.midway[r]) if r in row.midway else _NONE for r in midway)]
        line += [_mean(row.mean, row.error), _figure(row.worst), _figure(row.best)]
        if timed:
            line += [f"{row.reached}/{row.seeds}", _whole(row.rounds_to_target), _whole(row.seconds_to_target)]
        lines.append([*line, *_difference(row.difference)])
    return lines


def print_parts(parts: Sequence[Part], objective: Objective, console: Console) -> None:
    """All tables for people: the overview where there is more than one budget, then each with its details."""
    for title, lines in _tables(parts, objective):
        table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
        for number, heading in enumerate(lines[0]):
            table.add_column(escape(heading), justify="left" if number == 0 else "right")
        for line in lines[1:]:
            table.add_row(*map(escape, line))
        console.print(table, "")


def markdown(parts: Sequence[Part], objective: Objective) -> str:
    """The same as Markdown."""
    texts = []
    for title, lines in _tables(parts, objective):
        marks = ["---", *("---:" for _ in lines[0][1:])]
        rows = [lines[0], marks, *([f"`{line[0]}`", *line[1:]] for line in lines[1:])]
        texts.append(f"**{title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    return "\n".join(texts)


def as_csv(parts: Sequence[Part]) -> str:
    """Every row of every table with all its figures, not rounded."""
    records = as_records(parts)
    headings = list(dict.fromkeys(key for record in records for key in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def as_records(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Every row of every table as a flat record of JSON types."""
    return [_record(part, row) for part in parts for row in part.rows]


def _record(part: Part, row: Row) -> dict[str, Any]:
    figures: Mapping[str, Any] = asdict(row)
    record = {"budget": part.budget, "protocol": part.protocol, "target": part.target}
    record |= {name: value for name, value in figures.items() if name not in ("budget", "midway", "difference")}
    for rounds, (mean, error) in row.midway.items():
        record |= {f"mean_at_{rounds}": mean, f"error_at_{rounds}": error}
    paired = asdict(row.difference) if row.difference else {}
    return record | {f"difference_{name}": value for name, value in paired.items()}


def _tables(parts: Sequence[Part], objective: Objective) -> list[tuple[str, list[list[str]]]]:
    found = []
    for protocol in dict.fromkeys(part.protocol for part in parts):
        several = [part for part in parts if part.protocol == protocol]
        if len(several) > 1:
            what = "the model delivered" if protocol == "delivered" else "what was found, trained again from scratch"
            title = f"{objective.metric} of {what} by budget: mean ± standard error (worst seed)"
            found.append((title, overview(several)))
    for part in parts:
        aim = f"; target {part.target:.3f}" if part.target is not None and part.protocol == "delivered" else ""
        found.append((part.title(objective) + aim, details(part)))
    return found


def _column(part: Part) -> str:
    return f"{part.budget} rounds"


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return [_NONE] * 4
    interval = _NONE
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    return [f"{difference.mean:+.3f}", interval, _probability(difference.p_wilcoxon), _probability(difference.p_t)]


def _mean(mean: float, error: float | None) -> str:
    return _figure(mean) if error is None else f"{_figure(mean)} ± {_figure(error)}"


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _whole(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f}"


def _probability(value: float | None) -> str:
    if value is None:
        return _NONE
    return "<.001" if value < 0.001 else f"{value:.3f}"
