"""How long to wait before a call that was cut off is made again."""

import random

FIRST_S = 0.2
LONGEST_S = 3.0


class Patience:
    """Waits that double, with jitter, until something comes.

    Args:
        tries: How many waits there are until something must have come; None for any number.
    """

    def __init__(self, tries: int | None = None) -> None:
        self._tries = tries
        self._waits = 0

    @property
    def fresh(self) -> bool:
        """Whether something has come since the last wait."""
        return self._waits == 0

    @property
    def spent(self) -> bool:
        """Whether it is no use to wait again."""
        return self._tries is not None and self._waits >= self._tries

    def came(self) -> None:
        """Something has come."""
        self._waits = 0

    def next_s(self) -> float:
        """How long to wait this time, in seconds."""
        longest_s = min(LONGEST_S, FIRST_S * (1 << min(self._waits, 10)))
        self._waits += 1
        return longest_s * random.uniform(0.5, 1.0)
