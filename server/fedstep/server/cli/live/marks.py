"""What the picture is made of: bars, sparklines, times and amounts, each in a few characters."""

import math
from collections.abc import Sequence

from rich.text import Text

_LEVELS = "▁▂▃▄▅▆▇"
"""Not the whole block: a curve would run into the one above it."""
_STEADY = 0.02
"""A loss that has changed by less than this share of itself goes neither up nor down."""


def bar(share: float, width: int, style: str = "") -> Text:
    """A bar of that width, filled to a share of it; what is left of it is thin, so that it reads without colours."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return Text.assemble(("━" * full, style), ("─" * (width - full), "bright_black"))


def sparkline(values: Sequence[float], width: int) -> str:
    """The latest values as columns, the lowest of them the lowest; a blank for what is not finite."""
    shown = list(values)[-width:] if width else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    return "".join(_column(value, low, high) for value in shown)


def _column(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return " "
    share = (value - low) / (high - low) if high > low else 0.5
    return _LEVELS[min(len(_LEVELS) - 1, int(share * len(_LEVELS)))]


def trend(first: float, latest: float) -> str:
    """Where a loss goes."""
    if not (math.isfinite(first) and math.isfinite(latest)) or abs(latest - first) <= _STEADY * abs(first):
        return "→"
    return "↘" if latest < first else "↗"


def loss_text(value: float) -> str:
    """A loss in five characters or so."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def seconds_text(seconds: float) -> str:
    """A length of time, no more exact than anybody reads it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"


def said(text: str) -> str:
    """What somebody else has said, in one line: no character of it moves anything on the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def fitted(text: Text, width: int, right: bool = False) -> Text:
    """A text in exactly that many cells: cut where it is longer, padded where it is shorter."""
    copy = text.copy()
    copy.truncate(width, overflow="ellipsis")
    space = width - copy.cell_len
    if right:
        copy.pad_left(space)
    else:
        copy.pad_right(space)
    return copy


def row(cells: Sequence[tuple[Text | str, int]], between: str = "  ") -> Text:
    """Cells in columns. A negative width sets its cell to the right; a column of none is left out."""
    shown = [
        fitted(Text(cell) if isinstance(cell, str) else cell, abs(width), right=width < 0)
        for cell, width in cells
        if width
    ]
    return Text(between).join(shown)
