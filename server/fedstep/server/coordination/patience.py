"""How long a measurement waits for those who have not answered: by what they are known to take, and others took."""

import math
from collections.abc import Collection, Mapping
from statistics import median

_MOST = 0.75
"""Of those who were asked: when so many have ended, a slow one is waited for no longer than a silent one."""

_TIMES = 10.0
"""Times as long as those who answered took; a client of a tenth of their speed is in time."""

_LEAST_S = 2.0

_TIMES_OWN = 3.0
"""Times as long as a client is expected to take by its own pace."""

_LEAST_OWN_S = 1.0


class Patience:
    """When one measurement waits no longer, in seconds since its beginning.

    Who did not answer the last one and has not been heard of since is asked, and not waited for. Of whom it is known
    what they will take, they have three times as long: a slow one is waited for, a silent one not for long. Of whom
    nothing is known has ten times as long as those who have answered, and longer the fewer these are. When most have
    ended, nobody has more than that. Before anybody has answered nobody can say what it takes.

    Args:
        asked: How many clients measure.
        expected_s: Seconds that they are expected to take, by name, where that is known.
        silent: Names of those who are not waited for.
    """

    def __init__(self, asked: int, expected_s: Mapping[str, float], silent: Collection[str] = ()) -> None:
        self._asked = asked
        self._expected_s = expected_s
        self._silent = frozenset(silent)
        self._latest_s = 0.0
        self._off: list[float] = []

    def answered(self, name: str, took_s: float) -> None:
        """Takes in an answer."""
        self._latest_s = took_s
        if expected_s := self._expected_s.get(name):
            self._off.append(took_s / expected_s)

    def until_s(self, waiting: Collection[str]) -> float:
        """When nobody is waited for any more; infinite while nobody has answered.

        Args:
            waiting: Names of those who have neither answered nor failed; at least one.
        """
        ended = self._asked - len(waiting)
        if not self._latest_s:
            return math.inf
        most = ended >= _MOST * self._asked
        by_others_s = max(_TIMES * self._latest_s, _LEAST_S) * (1 if most else self._asked / ended)
        slower = max(1.0, median(self._off)) if self._off else 1.0

        def own_s(name: str) -> float:
            if name in self._silent:
                return self._latest_s
            if name not in self._expected_s:
                return by_others_s
            by_pace_s = max(_TIMES_OWN * slower * self._expected_s[name], _LEAST_OWN_S)
            return min(by_pace_s, by_others_s) if most else by_pace_s

        return max(map(own_s, waiting))
