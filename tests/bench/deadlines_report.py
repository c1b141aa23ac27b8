"""What `deadlines` writes: tables, curves of accuracy over time, and who did what in one round."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedstep.server.storage.base import AssignmentRecord
from tests.bench.policies import Ran

COLUMNS = (
    "policy",
    "rounds",
    "to target, s",
    "final accuracy",
    "all clients' data",
    "slow clients' data",
    "longest wait, s (rounds)",
    "never trained",
)
_COLORS = {
    "accepted": "#4f9a6e",
    "goes_on": "#00798c",
    "abandoned": "#7f8a97",
    "late": "#d1495b",
    "lost": "#5c4d7d",
    "failed": "#e07a2f",
}
_ENDS = {
    "accepted": "taken in time",
    "goes_on": "goes on, taken later",
    "abandoned": "called off",
    "late": "late",
    "lost": "lost",
    "failed": "failed",
}
_LINES = ("#d1495b", "#00798c", "#e07a2f", "#5c4d7d", "#4f9a6e", "#2e4057", "#b8860b", "#9c6644")
_FAINT = "#c9d1d9"


def rows_of(found: Sequence[Ran], target: float) -> list[list[str]]:
    """A row a policy, in the order of `COLUMNS`; the time to the target is told beside the first policy's."""
    first = found[0].reached_s(target) if found else None
    rows = []
    for ran in found:
        reached = ran.reached_s(target)
        told = "not reached" if reached is None else f"{reached:.1f}"
        if reached and first and ran is not found[0]:
            told += f" ({first / reached:.1f}×)"
        final = f"{ran.accuracy[-1]:.3f}" if ran.accuracy else "none"
        shares = [
            f"{ran.everyone:.3f}",
            f"{ran.slow:.3f}",
            f"{ran.waits.longest_s:.0f} ({ran.waits.longest_rounds})",
            f"{ran.waits.never}{f', there in at most {max(ran.there)} rounds' if ran.there else ''}",
        ]
        rows.append([ran.policy, str(ran.rounds), told, final, *shares])
    return rows


def print_table(title: str, found: Sequence[Ran], target: float) -> None:
    """The table as Markdown, and below it what became of the trainings."""
    print(f"\n{title}; target {target:g}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for row in rows_of(found, target):
        print(f"| {' | '.join(row)} |")
    print()
    for ran in found:
        outcomes = ", ".join(f"{count} {kind}" for kind, count in sorted(ran.outcomes().items(), key=lambda x: -x[1]))
        print(f"{ran.policy}: {outcomes}{'; ' * bool(ran.ended)}{ran.ended}", flush=True)


def write_csv(folder: Path, part: str, found: Sequence[Ran], target: float) -> None:
    """`PART-table.csv`, `PART-curves.csv` and `PART-clients.csv`."""
    tables: dict[str, list[Sequence[object]]] = {
        "table": [COLUMNS, *rows_of(found, target)],
        "curves": [("policy", "seconds", "accuracy")],
        "clients": [("policy", "round", "attempt", "client", "status", "seconds", "steps")],
    }
    for ran in found:
        curve = zip(ran.seconds, ran.accuracy, strict=True)
        tables["curves"] += [(ran.policy, f"{at_s:.3f}", f"{accuracy:.4f}") for at_s, accuracy in curve]
        tables["clients"] += [
            (
                ran.policy,
                a.round,
                a.attempt,
                a.client,
                a.status,
                f"{a.elapsed_s:.3f}",
                len(a.steps.loss) if a.steps else 0,
            )
            for a in ran.assignments
        ]
    for name, rows in tables.items():
        with (folder / f"{part}-{name}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def draw_curves(path: Path, title: str, found: Sequence[Ran], target: float, scale: str = "linear") -> None:
    """Accuracy over time, a line a policy; the scale of time is matplotlib's `linear` or `log`."""
    figure = Figure((9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for ran, color in zip(found, _LINES, strict=False):
        axes.step(ran.seconds, ran.accuracy, where="post", color=color, label=ran.policy, linewidth=1.6)
    axes.set_xscale(scale)
    axes.axhline(target, color=_FAINT, linewidth=1)
    axes.set(title=title, xlabel="seconds", ylabel="accuracy on data that nobody trains on")
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    axes.grid(color="#e4e7eb")
    figure.savefig(path, dpi=120)


def draw_timeline(path: Path, title: str, found: Sequence[Ran], clients: Sequence[str]) -> None:
    """Who did what in one round of each policy: a panel a policy, a bar a client, from dispatch to its end.

    It is the round of the middle third in which trainings ended in the most ways, the one nearest the middle of these.

    Args:
        path: The file to write.
        title: Above it.
        found: The policies.
        clients: From the top.
    """
    figure = Figure((9, 0.9 + len(found) * (0.5 + 0.14 * len(clients))), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(len(found)))
    place = {name: position for position, name in enumerate(clients)}
    for axes, ran in zip(panels, found, strict=True):
        shown = _telling_round(ran.assignments)
        for a in (a for a in ran.assignments if a.round == shown and a.client in place):
            _bar(axes, place[a.client], a)
        axes.set(title=f"{ran.policy}, round {shown}", ylim=(len(clients) - 0.4, -0.6), xlim=(0, None))
        axes.set_yticks(range(len(clients)), clients, fontsize=5)
        axes.tick_params(axis="x", labelsize="small")
    panels[-1].set_xlabel("seconds since the round began; dark: in local steps")
    figure.suptitle(title)
    handles = [Patch(color=color) for color in _COLORS.values()]
    texts = [_ENDS[status] for status in _COLORS]
    figure.legend(handles, texts, loc="outside lower center", ncols=len(_COLORS), frameon=False)
    figure.savefig(path, dpi=120)


def _telling_round(assignments: Sequence[AssignmentRecord]) -> int:
    ends: dict[int, set[str]] = {}
    for a in assignments:
        ends.setdefault(a.round, set()).add(a.status)
    numbers = sorted(ends)
    middle, third = len(numbers) // 2, len(numbers) // 3
    some = numbers[third : len(numbers) - third] or numbers
    return max(some, key=lambda number: (len(ends[number]), -abs(number - middle)), default=0)


def _bar(axes: Axes, row: int, a: AssignmentRecord) -> None:
    color = _COLORS.get(a.status, "#000000")
    steps_s = float(np.nansum(a.steps.step_ms)) / 1000 if a.steps else 0.0
    axes.barh(row, a.elapsed_s, height=0.7, color=color, alpha=0.4)
    axes.barh(row, min(steps_s, a.elapsed_s), height=0.7, color=color)
