"""How many records a page of a list holds, for every list of the protocol."""

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """What was asked for, within bounds; 0 for the default."""
    return min(asked or DEFAULT_PAGE, MAX_PAGE)
