"""The fleet in columns, one row a client: looking through 100,000 members one by one would hold up the event loop."""

from bisect import insort
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedstep.server.selection.draw import key_of


class Listed(Protocol):
    """What the roll reads of a member, and the two attributes of it that it sets."""

    name: str
    session_id: str
    busy: str
    late: bool
    drained: bool
    train_samples: int
    validation_samples: int
    roll: "Roll | None"
    row: int

    @property
    def connected(self) -> bool:
        """Whether it can be reached."""
        ...

    @property
    def lost_touch(self) -> bool:
        """Whether its stream is cut, or it has fallen quiet, and its lease still runs."""
        ...


class Roll:
    """Columns [rows] of what selections ask of every member. A row is given once, in the order of arrival, and stays.

    Attributes:
        names: Of the clients.
        keys: See `selection.draw.key_of`.
        connected: Whether they can be reached.
        lost_touch: Whether their stream is cut, or they have fallen quiet, and their lease still runs.
        busy: Whether they train.
        late: Whether that is late work: its round is over.
        drained: Whether they are given nothing new.
        sessions: How often they joined.
        train_samples: As they last announced.
        validation_samples: As they last announced.
    """

    def __init__(self) -> None:
        self.names: NDArray[np.object_] = np.empty(0, object)
        self.keys: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.connected: NDArray[np.bool_] = np.empty(0, bool)
        self.lost_touch: NDArray[np.bool_] = np.empty(0, bool)
        self.busy: NDArray[np.bool_] = np.empty(0, bool)
        self.late: NDArray[np.bool_] = np.empty(0, bool)
        self.drained: NDArray[np.bool_] = np.empty(0, bool)
        self.sessions: NDArray[np.int64] = np.empty(0, np.int64)
        self.train_samples: NDArray[np.int64] = np.empty(0, np.int64)
        self.validation_samples: NDArray[np.int64] = np.empty(0, np.int64)
        self._count = 0
        self._last_session: list[str] = []
        self._sorted: list[tuple[str, int]] = []
        self._by_name: NDArray[np.intp] = np.empty(0, np.intp)

    def __len__(self) -> int:
        return self._count

    @property
    def by_name(self) -> NDArray[np.intp]:
        """The rows in the order of the names."""
        if len(self._by_name) != self._count:
            self._by_name = np.fromiter((row for _, row in self._sorted), np.intp, self._count)
        return self._by_name

    def add(self, member: Listed) -> None:
        """Gives a new member its row."""
        row = self._count
        self._count += 1
        if self._count > len(self.names):
            self._grow(max(64, 2 * self._count))
        self.names[row], self.keys[row] = member.name, key_of(member.name)
        self._last_session.append("")
        insort(self._sorted, (member.name, row))
        member.row, member.roll = row, self
        self.write(member)

    def write(self, member: Listed) -> None:
        """Brings a member's row up to date."""
        row = member.row
        self.connected[row] = member.connected
        self.lost_touch[row] = member.lost_touch
        self.busy[row] = bool(member.busy)
        self.late[row] = member.late
        self.drained[row] = member.drained
        self.train_samples[row] = min(member.train_samples, _MOST)
        self.validation_samples[row] = min(member.validation_samples, _MOST)
        if self._last_session[row] != member.session_id:
            self._last_session[row] = member.session_id
            self.sessions[row] += 1

    def _grow(self, rows: int) -> None:
        for name in _COLUMNS:
            setattr(self, name, grown(getattr(self, name), rows, 0))


_COLUMNS = (
    "names",
    "keys",
    "connected",
    "lost_touch",
    "busy",
    "late",
    "drained",
    "sessions",
    "train_samples",
    "validation_samples",
)

_MOST = 2**62
"""Clients say what they like of their samples."""


def grown(column: NDArray[Any], rows: int, fill: Any) -> NDArray[Any]:
    """The column with room for at least so many rows."""
    more = rows - len(column)
    return column if more <= 0 else np.concatenate([column, np.full(more, fill, column.dtype)])
