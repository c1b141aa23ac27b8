"""The middle of the picture: what clients do now, a bar each."""

import math
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from rich.text import Text

from fedstep.server.cli.live.head import UNDER_WAY
from fedstep.server.cli.live.marks import bar, loss_text, row, said, seconds_text, sparkline, trend
from fedstep.v1 import progress_pb2 as pb

_DOING = {
    pb.PHASE_KIND_TRAIN: "training",
    pb.PHASE_KIND_MEASURE: "measuring",
    pb.PHASE_KIND_BUFFER: "buffer",
}
_ANSWERS = {pb.PHASE_KIND_TRAIN: "updates", pb.PHASE_KIND_MEASURE: "answers", pb.PHASE_KIND_BUFFER: "updates"}
_OVER = (pb.WORK_STATE_DONE, pb.WORK_STATE_FAILED)
_WHEN = (8, 13)
"""The least and the most characters for when a client will be done, or why that is not known."""


def work(snapshot: pb.Snapshot, width: int, rows: int) -> list[Text]:
    """At most so many lines: of every phase its own line, and of its clients those that fit, the slowest first."""
    phases = snapshot.phases
    if not phases:
        return [Text(_waiting(snapshot), "bright_black")][:rows]
    if 2 * len(phases) > rows:  # no room for clients under each
        return _cut([_title(phase, snapshot, width) for phase in phases], len(phases), rows, "phase")
    lines: list[Text] = []
    for number, phase in enumerate(phases):
        room = (rows - len(lines)) // (len(phases) - number)
        lines += [_title(phase, snapshot, width), *_clients(phase, width, room - 1)]
    return lines


def wanted_rows(snapshot: pb.Snapshot) -> int:
    """Lines that all of it would take."""
    return max(1, sum(1 + len(phase.clients) for phase in snapshot.phases))


def _waiting(snapshot: pb.Snapshot) -> str:
    if snapshot.state not in UNDER_WAY:
        return f"The study is {snapshot.state}."
    if snapshot.fleet.for_study < snapshot.fleet.needed:
        return "Waiting for clients."
    return "Between two rounds: nobody is asked at this moment."


def _title(phase: pb.PhaseProgress, snapshot: pb.Snapshot, width: int) -> Text:
    """Whose round it is, how many have answered, how much of its time is gone, and where the loss goes."""
    parts = [
        f"{phase.taken} of {phase.wanted} {_ANSWERS.get(phase.kind, '')}",
        f"{_seconds(phase.elapsed)} of {_seconds(phase.deadline)}",
    ]
    if phase.HasField("loss") and math.isfinite(phase.loss):
        parts.append(
            f"loss {loss_text(phase.first_loss)} {trend(phase.first_loss, phase.loss)} {loss_text(phase.loss)}"
        )
    if phase.failed:
        parts.append(f"{phase.failed} failed")
    if snapshot.late:
        parts.append(f"{snapshot.late} of earlier rounds")
    again = f", attempt {phase.attempt}" if phase.attempt > 1 and phase.kind != pb.PHASE_KIND_MEASURE else ""
    name = f"{_name(phase.trial, snapshot)}, round {phase.round}{again}"
    text = Text.assemble((name, "bold"), f"  {_DOING.get(phase.kind, '')}  ", " · ".join(parts))
    text.truncate(width, overflow="ellipsis")
    return text


def _name(number: int, snapshot: pb.Snapshot) -> str:
    phase = next((arm.phase for arm in snapshot.arms if arm.number == number), "")
    return f"{phase.capitalize()} {number}" if phase.isalpha() else f"Trial {number}"


def _seconds(duration: Duration) -> str:
    return seconds_text(duration.ToTimedelta().total_seconds())


@dataclass(frozen=True)
class _Widths:
    """Of the columns; 0 leaves one out."""

    name: int
    bar: int
    steps: int
    when: int
    loss: int
    line: int

    @classmethod
    def of(cls, phase: pb.PhaseProgress, width: int) -> "_Widths":
        clients = phase.clients
        name = min(max(map(len, (one.client_name for one in clients)), default=0), max(8, width // 5))
        steps = max((len(_steps(one)) for one in clients), default=0)
        loss = 6 if any(one.losses for one in clients) else 0
        line = min(24, width // 7) if loss else 0
        least, most = _WHEN
        when = min(max((len(_when(one, phase)[0]) for one in clients), default=0), most)
        when = max(when, least)
        taken = sum(2 + column for column in (name, steps, when, loss, line) if column)
        return cls(name, max(6, min(40, width - taken - 2)), steps, when, loss, line)


def _clients(phase: pb.PhaseProgress, width: int, rows: int) -> list[Text]:
    clients = [*phase.clients]
    if len(clients) <= rows:
        clients.sort(key=lambda one: _natural(one.client_name))  # all fit: nobody has to move
    widths = _Widths.of(phase, width)
    return _cut([_client(one, phase, widths) for one in clients], phase.asked, rows, "client")


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """client-9 before client-10."""
    parts = "".join(c if c.isdecimal() else f" {c} " for c in name).split()
    return tuple((part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _client(one: pb.ClientProgress, phase: pb.PhaseProgress, widths: _Widths) -> Text:
    share = one.steps / one.steps_asked if one.steps_asked else float(one.state == pb.WORK_STATE_DONE)
    when, style = _when(one, phase)
    line = Text.assemble(
        "  ",
        row(
            [
                (one.client_name, widths.name),
                (bar(share, widths.bar, style), widths.bar),
                (_steps(one), -widths.steps),
                (Text(when, style), -widths.when),
                (loss_text(one.losses[-1]) if one.losses else "", -widths.loss),
                (Text(sparkline(one.losses, widths.line), "cyan"), widths.line),
            ]
        ),
    )
    if one.state in _OVER:
        line.stylize("dim")
    return line


def _steps(one: pb.ClientProgress) -> str:
    return f"{one.steps}/{one.steps_asked}" if one.steps_asked else ""


def _when(one: pb.ClientProgress, phase: pb.PhaseProgress) -> tuple[str, str]:
    """When it was or will be done, or why that is not known; and the colour of its row."""
    finish = _seconds(one.finish) if one.HasField("finish") else ""
    if one.state == pb.WORK_STATE_DONE:
        return f"✓ {finish}", "green"
    if one.state == pb.WORK_STATE_FAILED:
        return said(one.message) or "failed", "red"
    if one.lost_touch:
        return "lost touch", "yellow"
    if one.state == pb.WORK_STATE_TOLD_TO_SEND:
        return "sends part", "yellow"
    if one.state == pb.WORK_STATE_SENDING:
        return "sending", "green"
    if one.state == pb.WORK_STATE_MEASURING:
        return "measuring", ""
    if not finish:
        return "no step yet", "bright_black"
    late = one.finish.ToTimedelta() > phase.deadline.ToTimedelta()
    return (f"{finish}, late", "yellow") if late else (f"≈ {finish}", "green")


def _cut(lines: list[Text], count: int, rows: int, noun: str) -> list[Text]:
    """At most so many lines. Where these are not all that are counted, the last one says how many more there are."""
    if len(lines) == count <= rows:
        return lines
    kept = lines[: max(0, rows - 1)]
    more = count - len(kept)
    return [*kept, Text(f"  and {more} more {noun}{'s'[: more != 1]}", "bright_black")][: max(0, rows)]
