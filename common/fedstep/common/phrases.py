"""Pieces of the sentences that people read."""


def count_text(count: int, noun: str) -> str:
    """So many of them: `1 client`, `2 clients`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
