"""Trials or arms, the newest first, with what they are trained with and what they are worth."""

from rich.text import Text

from fedstep.common import hyperparameters as hp
from fedstep.server.cli.live.marks import row, sparkline
from fedstep.v1 import progress_pb2 as pb

_STATES = {"running": "cyan", "completed": "green", "pruned": "yellow", "failed": "red"}
_STATE, _ROUNDS, _VALUE, _NUMBER, _CURVE = 9, 7, 8, 6, 12
_NARROW = 80
_SIGNS = {"running": "▶", "completed": "✓", "pruned": "✂", "failed": "✗"}
"""Of the states, where there is no room for words."""


def arms(snapshot: pb.Snapshot, width: int, rows: int) -> list[Text]:
    """At most so many lines, with their heading; nothing where there is no room for one of them."""
    if rows < 2 or not snapshot.arms:
        return []
    newest = sorted(snapshot.arms, key=lambda arm: (arm.state == "running", arm.number), reverse=True)
    best = snapshot.best.number if snapshot.HasField("best") else -1
    cut = len(newest) > rows - 1 or snapshot.arm_count > len(newest)
    room = rows - 1 - cut
    if room < 1:
        return []
    shown = newest[:room]
    if best >= 0 and room > 1 and best not in [arm.number for arm in shown]:
        shown = [*shown[: room - 1], snapshot.best]
    phase = max(len(arm.phase) for arm in shown)
    line = 0 if width < _NARROW else min(_CURVE, max(len(arm.values) for arm in shown))
    noun = "trial" if snapshot.by_trials else "arm"
    heading = _line(
        (noun, "for", "" if width < _NARROW else "state", "rounds", snapshot.metric, "", "tuned"), width, phase, line
    )
    heading.stylize("bold")
    lines = [heading, *(_arm(arm, arm.number == best, width, phase, line) for arm in shown)]
    if cut and (more := snapshot.arm_count - len(shown)) > 0:
        lines.append(Text(f"  and {more} more: fedstep study trials {snapshot.study}", "bright_black"))
    return lines


def wanted_rows(snapshot: pb.Snapshot) -> int:
    """Lines that all of it would take."""
    return 1 + len(snapshot.arms) + (snapshot.arm_count > len(snapshot.arms)) if snapshot.arms else 0


def _arm(arm: pb.ArmProgress, best: bool, width: int, phase: int, line: int) -> Text:
    rounds = f"{arm.rounds}/{arm.rounds_asked}" if arm.rounds_asked else "measure"
    value = f"{arm.value:.4f}" if arm.HasField("value") else "–"
    state = _SIGNS.get(arm.state, "?") if width < _NARROW else arm.state
    values = hp.map_from_proto(arm.hyperparameters)
    cells = (
        Text(f"{arm.number}{' ★' if best else '  '}", "bold green" if best else ""),
        arm.phase,
        Text(state, _STATES.get(arm.state, "")),
        rounds,
        Text(value, "bold" if best else ""),
        Text(sparkline(arm.values, line), "cyan"),
        hp.describe(dict(sorted(values.items()))),
    )
    return _line(cells, width, phase, line)


def _line(cells: tuple[Text | str, ...], width: int, phase: int, line: int) -> Text:
    widths = [-_NUMBER, phase, 1 if width < _NARROW else _STATE, -_ROUNDS, -_VALUE, line]
    rest = width - sum(2 + abs(column) for column in widths if column)
    return row([*zip(cells, [*widths, max(rest, 0)], strict=True)])
