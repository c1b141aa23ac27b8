"""Who of the fleet can have work of one study."""

import numpy as np
from numpy.typing import NDArray

from fedstep.common.spec import StudySpec
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.roll import grown

Rows = NDArray[np.intp]
"""Clients by their rows in the roll of the fleet."""

Marks = NDArray[np.bool_]
"""One for every row of the roll."""


class Eligible:
    """The clients that serve a study's task, with a model and data of their own that fit.

    Args:
        spec: The study.
        fleet: Who is there.
    """

    def __init__(self, spec: StudySpec, fleet: Fleet) -> None:
        self.layout: Manifest | None = None
        """What a client's model must look like; None before `compare_with`."""
        self._spec = spec
        self._fleet = fleet
        self._verdicts: dict[str, tuple[str, str | None]] = {}
        self._fits = np.empty(0, bool)
        self._looked_at: NDArray[np.int64] = np.empty(0, np.int64)

    def compare_with(self, layout: Manifest) -> None:
        """From now on a client's model must have this layout at its default hyper-parameters."""
        self.layout = layout
        self._verdicts.clear()
        self._looked_at[:] = 0

    def mismatch(self, member: Member) -> str | None:
        """Why a client can have no work of this study, in words; None when it can. Looked at once a session."""
        session, verdict = self._verdicts.get(member.name, ("", None))
        if session != member.session_id:
            verdict = self._compared(member)
            self._verdicts[member.name] = (member.session_id, verdict)
        return verdict

    def _compared(self, member: Member) -> str | None:
        if member.task != self._spec.task:
            return f"study {self._spec.name} trains task {self._spec.task} and this client serves {member.task}"
        difference = self.layout.difference(member.manifest) if self.layout else None
        if difference:
            return f"study {self._spec.name}'s model of task {member.task} is another one: here {difference}"
        return None

    def there(self) -> Marks:
        """Who of the roll's rows could train, busy or not."""
        fitting = self._fitting()
        return fitting & ~self._fleet.roll.drained[: len(fitting)]

    def in_time(self) -> Marks:
        """The same, less those that are busy with late work."""
        there = self.there()
        return there & ~self._fleet.roll.late[: len(there)]

    def free(self) -> Marks:
        """The same, less those that train."""
        there = self.there()
        return there & ~self._fleet.roll.busy[: len(there)]

    def _fitting(self) -> Marks:
        """Who could train, those that are drained as well."""
        roll, count = self._fleet.roll, len(self._fleet.roll)
        if len(self._fits) < count:
            self._fits = grown(self._fits, len(roll.names), False)
            self._looked_at = grown(self._looked_at, len(roll.names), 0)
        for row in np.flatnonzero(self._looked_at[:count] != roll.sessions[:count]).tolist():
            self._fits[row] = self.mismatch(self._fleet.at(row)) is None
            self._looked_at[row] = roll.sessions[row]
        fitting: Marks = self._fits[:count] & roll.connected[:count] & (roll.train_samples[:count] > 0)
        return fitting

    def by_name(self, chosen: Marks) -> Rows:
        """The rows that are chosen, in the order of the names."""
        order = self._fleet.roll.by_name
        return order[chosen[order]]

    def names(self) -> list[str]:
        """Who is there, by name."""
        names: list[str] = self._fleet.roll.names[self.by_name(self.there())].tolist()
        return names

    def count(self) -> int:
        """How many are there, busy or not."""
        return int(np.count_nonzero(self.there()))

    def drained(self) -> int:
        """How many would be, were they not drained."""
        fitting = self._fitting()
        return int(np.count_nonzero(fitting & self._fleet.roll.drained[: len(fitting)]))
