"""What a report is made of: sections, and in them words, figures, tables, charts and texts to copy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

Cell = str
"""Text as it is; the page escapes it."""


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"

    text: str


@dataclass(frozen=True)
class Tiles:
    """A few figures, large.

    Attributes:
        items: Each figure with what it is.
    """

    kind: ClassVar[str] = "tiles"

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows.

    Attributes:
        headings: Of the columns.
        rows: Each with as many cells.
        title: Above it.
        see: What to see in it, in one sentence.
        numbers: The columns that are aligned as numbers.
        folded: Whether it is closed until somebody opens it.
        more: Said below, where rows were left out.
    """

    kind: ClassVar[str] = "table"

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    see: str = ""
    numbers: frozenset[int] = frozenset()
    folded: bool = False
    more: str = ""


@dataclass(frozen=True)
class Picture:
    """A chart.

    Attributes:
        name: Of `charts.Chart`.
        title: Above it.
        see: What to see in it, in one sentence.
    """

    kind: ClassVar[str] = "picture"

    name: str
    title: str
    see: str


@dataclass(frozen=True)
class Code:
    """A text to copy.

    Attributes:
        text: The text.
        title: Above it.
        file: The name that it is saved under, closed until somebody opens it; "" where it is no file.
    """

    kind: ClassVar[str] = "code"

    text: str
    title: str
    file: str = ""


Block = Words | Tiles | Table | Picture | Code


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        key: Its anchor.
        title: What it is about.
        see: What to see in it, in one sentence.
        blocks: What it holds, in order.
    """

    key: str
    title: str
    see: str
    blocks: Sequence[Block] = field(default_factory=tuple)
