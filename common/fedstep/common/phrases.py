"""Pieces of what people read and write."""

_DIGITS = 18
"""Of the longest whole number that is read: Python refuses to read very long ones."""


def count_text(count: int, noun: str) -> str:
    """So many of them: `1 client`, `2 clients`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def whole_number_of(text: str) -> int | None:
    """The whole number that a text is, from 0; None where it is none, or has more than 18 digits."""
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > _DIGITS:
        return None
    return int(text)
