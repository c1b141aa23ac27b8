"""What a study has seen of its clients: who was asked, who trained, who missed, and with what loss."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.ledger import Status
from fedstep.server.coordination.outcome import Work
from fedstep.server.coordination.roll import Roll, grown
from fedstep.server.selection.base import Part, RoundSeen
from fedstep.server.storage.base import AssignmentRecord, RoundRecord

_MISSED = (Status.LATE, Status.LOST, Status.FAILED)
"""Not who goes on: its update may be taken yet, or is called off because its client is needed elsewhere."""

_COHORTS_KEPT = 2048
"""Draws that an arm which is compared may want again; a fork's are a dozen, a trial's as many as its rounds."""

Draw = tuple[int, int, int]
"""Which cohort: the number of the evaluation cohort, which arms that are compared share, the round, the attempt."""


@dataclass(frozen=True)
class _Drawn:
    """What is remembered of a draw.

    Attributes:
        cohort: Who was asked.
        waited_for: Of these, whom the round waited for; () when it is not known, as after a restart.
        number: Of the draw, from 1.
    """

    cohort: tuple[str, ...] = ()
    waited_for: tuple[str, ...] = ()
    number: int = 0


class History:
    """Columns [rows] of a study's clients, in the rows of the fleet's roll.

    It counts draws and not rounds: the children of a fork train the same cohorts, and that is one draw.

    Args:
        roll: Who there is. Those who have not come since the coordinator was started are remembered until they do.

    Attributes:
        draws: Cohorts drawn so far.
    """

    def __init__(self, roll: Roll) -> None:
        self.draws = 0
        self._roll = roll
        self._rows: dict[str, int] = {}
        self._columns: dict[str, NDArray[Any]] = {
            "loss": np.empty(0),
            "trained": np.empty(0, np.int64),
            "missed": np.empty(0, np.int64),
            "trained_at": np.empty(0, np.int64),
            "asked_at": np.empty(0, np.int64),
            "missed_at": np.empty(0, np.int64),
        }
        self._fill = {"loss": np.nan, "trained": 0, "missed": 0, "trained_at": 0, "asked_at": -1, "missed_at": -1}
        self._absent: dict[str, dict[str, float]] = {}
        self._drawn: dict[Draw, _Drawn] = {}

    def columns(self, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """What a selector is told of these rows, by the names of `selection.base.Candidates`."""
        self._fit()
        found = {name: column[rows] for name, column in self._columns.items()}
        return {
            "loss": found["loss"],
            "trained": found["trained"],
            "missed": found["missed"],
            "waited": self.draws - found["trained_at"],
            "unasked": self.draws - found["asked_at"],
            "unmissed": self.draws - found["missed_at"],
        }

    def earlier(self, draw: Draw) -> tuple[str, ...]:
        """Who was asked when this draw was first made; () when it is new."""
        return self._drawn.get(draw, _Drawn()).cohort

    def waited_for(self, draw: Draw) -> tuple[str, ...]:
        """Of those, whom the round waited for; () when it is not known, as after a restart."""
        return self._drawn.get(draw, _Drawn()).waited_for

    def drawn(self, draw: Draw, cohort: tuple[str, ...], waited_for: Collection[str] = ()) -> None:
        """Takes in a draw; one that was made before is passed over."""
        if draw in self._drawn:
            return
        self.draws += 1
        self._drawn[draw] = _Drawn(cohort, tuple(sorted(waited_for)), self.draws)
        while len(self._drawn) > _COHORTS_KEPT:
            del self._drawn[next(iter(self._drawn))]

    def observe(self, seen: RoundSeen, draw: Draw | None = None) -> None:
        """Takes in a round that was trained.

        Args:
            seen: The round.
            draw: Its cohort's, which an arm that is compared with another may have trained again much later: it is as
                long ago as when it was first drawn. None, and one that is not remembered, are the latest.
        """
        self._fit()
        remembered = None if draw is None else self._drawn.get(draw)
        at = remembered.number if remembered else self.draws
        for part in seen.parts:
            with self._changing(part.client) as known:
                self._asked(part, known, at)
        for client in seen.late:
            with self._changing(client) as known:
                self._trained(known, at)

    @contextmanager
    def _changing(self, client: str) -> Iterator[dict[str, float]]:
        """What is kept of one client, to be changed."""
        row = self._rows.get(client)
        if row is None:
            yield self._absent.setdefault(client, dict(self._fill))
            return
        known = {name: column[row] for name, column in self._columns.items()}
        yield known
        self._write(row, known)

    def _asked(self, part: Part, known: dict[str, float], at: int) -> None:
        known["asked_at"] = max(known["asked_at"], at)
        if part.trained:
            self._trained(known, at)
        if part.missed:
            known["missed"] += 1
            known["missed_at"] = max(known["missed_at"], at)
        if part.loss is not None:
            known["loss"] = part.loss

    def _trained(self, known: dict[str, float], at: int) -> None:
        known["trained"] += 1
        known["trained_at"] = max(known["trained_at"], at)
        known["missed"] = 0

    def _write(self, row: int, known: dict[str, float]) -> None:
        for name, column in self._columns.items():
            column[row] = known[name]

    def _fit(self) -> None:
        """Takes in who has come since."""
        for name in self._columns:
            self._columns[name] = grown(self._columns[name], len(self._roll.names), self._fill[name])
        for row in range(len(self._rows), len(self._roll)):
            name = self._roll.names[row]
            self._rows[name] = row
            if name in self._absent:
                self._write(row, self._absent.pop(name))


def round_seen(
    record: RoundRecord, assignments: Sequence[AssignmentRecord], late: Sequence[TakenLate] = ()
) -> RoundSeen:
    """A committed round as a selector is told of it.

    Args:
        record: The round.
        assignments: Everybody's part in it.
        late: Updates of earlier rounds that it took.
    """
    parts = [_part(assignment) for assignment in assignments if assignment.work == Work.TRAIN]
    named = [taken.client for taken in late]
    return RoundSeen(record.trial, record.round, parts, record.seconds, record.metrics.get("loss"), named)


def _part(record: AssignmentRecord) -> Part:
    trained = record.status == Status.ACCEPTED and "steps" in record.metrics  # else it was asked for reports only
    return Part(
        client=record.client,
        trained=trained,
        missed=record.status in _MISSED,
        samples=record.samples if trained else 0,
        loss=record.metrics.get("loss_rms", record.metrics.get("loss")) if trained else None,
    )
