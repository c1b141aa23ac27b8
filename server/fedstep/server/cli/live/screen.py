"""The whole picture: as much of each part as the terminal has room for."""

import textwrap
from collections import deque
from collections.abc import Sequence
from datetime import UTC

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from fedstep.server.cli.live.arms import arms
from fedstep.server.cli.live.arms import wanted_rows as rows_of_arms
from fedstep.server.cli.live.head import head
from fedstep.server.cli.live.marks import said
from fedstep.server.cli.live.work import wanted_rows as rows_of_work
from fedstep.server.cli.live.work import work
from fedstep.server.cli.show import kind_style
from fedstep.v1 import progress_pb2, study_pb2

_KEPT = 40
"""Events."""
_REMEMBERED = 40
"""Pictures, ten seconds or so: the lines that clients took in one of them stay theirs."""
_SHARES = (0.5, 0.3, 0.2)
"""Of the lines below the head: for clients, for arms and for events. What one does not need the others get."""
_NARROWEST = 40
_MOST_LINES = 3
"""Of one event."""


class Screen:
    """What a terminal shows of one study. Rich draws it at whatever size the terminal has then.

    Args:
        name: The study's.
        hint: What Ctrl-C does.

    Attributes:
        snapshot: The newest one; None before the first.
        note: About the watching itself, such as a coordinator that is away; "" for nothing.
    """

    def __init__(self, name: str, hint: str = "") -> None:
        self.snapshot: progress_pb2.Snapshot | None = None
        self.note = ""
        self._name = name
        self._hint = hint
        self._events: deque[study_pb2.StudyEvent] = deque(maxlen=_KEPT)
        self._work_rows: deque[int] = deque(maxlen=_REMEMBERED)

    def tell(self, event: study_pb2.StudyEvent) -> None:
        """Something has happened."""
        self._events.append(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        for line in self.lines(options.max_width, height)[:height]:
            yield from console.render(line, options.update(no_wrap=True, overflow="crop", height=None))

    def lines(self, width: int, height: int) -> list[Text]:
        """All of it, no wider and no more lines than that; less than 40 columns are not made use of."""
        width = max(width, _NARROWEST)
        if self.snapshot is None:
            return [Text(self.note or f"Asking for study {self._name}…")][:height]
        top = head(self.snapshot, width)
        bottom = [Text(self.note, "bold yellow") if self.note else Text(self._hint, "bright_black")]
        room = height - len(top) - len(bottom) - 4  # a blank line after each part
        told = [_event(event, width) for event in self._events]
        # A round's end and the next one's beginning do not make all that is below jump.
        self._work_rows.append(rows_of_work(self.snapshot))
        wanted = (max(self._work_rows), rows_of_arms(self.snapshot), sum(map(len, told)))
        for_work, for_arms, for_told = _shared(max(room, 0), wanted)
        parts = [
            _padded(work(self.snapshot, width, for_work), for_work),
            arms(self.snapshot, width, for_arms),
            _latest(told, for_told),
        ]
        body = [line for part in parts if part for line in (Text(), *part)]
        return [*top, *body, Text(), *bottom][:height] if room >= 0 else [*top, *bottom][:height]


def _latest(told: Sequence[list[Text]], rows: int) -> list[Text]:
    """The latest events that fit whole into so many lines, the newest one last; of that one at least the beginning."""
    lines: list[Text] = []
    for event in reversed(told):
        if len(lines) + len(event) > rows:
            break
        lines = [*event, *lines]
    return lines or (told[-1][:rows] if told else [])


def _event(event: study_pb2.StudyEvent, width: int) -> list[Text]:
    at = event.time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")
    lines = textwrap.wrap(said(event.text), width - 10, max_lines=_MOST_LINES, placeholder=" …") or [""]
    style = kind_style(event.kind)
    first = Text.assemble((at, "bright_black"), "  ", (lines[0], style))
    return [first, *(Text.assemble(" " * 10, (line, style)) for line in lines[1:])]


def _shared(room: int, wanted: Sequence[int]) -> list[int]:
    """How many lines each part gets: what it wants up to its share, and of what is left the first ones first."""
    given = [min(want, int(share * room)) for want, share in zip(wanted, _SHARES, strict=True)]
    for number, want in enumerate(wanted):
        given[number] += min(want - given[number], room - sum(given))
    return given


def _padded(lines: list[Text], rows: int) -> list[Text]:
    return [*lines, *[Text()] * (rows - len(lines))]
