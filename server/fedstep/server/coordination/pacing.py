"""Who is how fast: what finished work and transfers tell of every client's pace, and its way to the store and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedstep.common.hyperparameters import Hyperparameters, from_proto
from fedstep.common.standard import DEFAULTS
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.ledger import Ledger, OpenAssignment, Status
from fedstep.server.coordination.plan import whole_steps
from fedstep.server.selection.pace import Known, Paces, Prediction, known
from fedstep.server.storage.base import PaceRecord

_CUT_OFF = (Status.ABANDONED, Status.LATE, Status.LOST)
"""Ends of work that would have taken longer."""

_LEAST_FETCHED = 1 << 20
"""Less than this is in somebody's buffers before it has gone anywhere: how long that takes says nothing."""

_A_MOMENT_S = 1e-3
"""A model that was there in less did not have to come: its client had it, fetched to measure it."""


class PaceBook:
    """The pace of every client of the fleet, from what stands on their assignments when these end.

    Args:
        fleet: Who there is.
        ledger: Where work ends.
        history: What earlier lives of the coordinator have learnt.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, history: Sequence[PaceRecord] = ()) -> None:
        self._fleet = fleet
        self._paces = Paces()
        self._history = {record.client: record.pace for record in history}
        self._tasks: dict[int, str] = {}
        self._unsaved: set[int] = set()
        fleet.when_joined(self._recall)
        ledger.when_closed(self._learn)

    def predict(
        self, rows: NDArray[np.intp], steps: NDArray[np.int64] | int, batch_size: int, manifest: Manifest
    ) -> Prediction:
        """What a training takes, see `Paces.predict`."""
        self._paces.fit(len(self._fleet.roll))
        return self._paces.predict(rows, steps, batch_size, manifest.payload_bytes, manifest.update_bytes)

    def of(self, rows: NDArray[np.intp]) -> Paces:
        """What is known of these clients now, see `Paces.of`."""
        self._paces.fit(len(self._fleet.roll))
        return self._paces.of(rows)

    def upload_s(self, member: Member, payload_bytes: int) -> float:
        """Seconds that so many bytes are expected to be on their way from a client; 0 where nothing is known of it."""
        self._paces.fit(len(self._fleet.roll))
        return self._paces.upload_s(member.row, payload_bytes)

    def known(self, name: str) -> Known:
        """What is known of a client, for people; also of one that has not come yet in this life of the coordinator."""
        member = self._fleet.find(name)
        return known(self._history.get(name, {}) if member is None else self._paces.kept(member.row))

    def unsaved(self) -> list[PaceRecord]:
        """What has been learnt since this was last asked, for the store."""
        rows, self._unsaved = sorted(self._unsaved), set()
        return [PaceRecord(self._fleet.at(row).name, self._kept(row)) for row in rows]

    def _kept(self, row: int) -> dict[str, Any]:
        return {"task": self._tasks[row], **self._paces.kept(row)}

    def not_saved(self, records: Sequence[PaceRecord]) -> None:
        """These could not be saved: they are unsaved still."""
        self._unsaved |= {self._fleet.member(record.client).row for record in records}

    def _recall(self, member: Member) -> None:
        """What was known of a client that came; steps of another task are other steps."""
        row = member.row
        self._paces.fit(len(self._fleet.roll))
        if kept := self._history.pop(member.name, None):
            self._paces.recall(row, kept)
            self._tasks[row] = str(kept.get("task", ""))
        if self._tasks.get(row, member.task) != member.task:
            self._paces.forget_steps(row)
        self._tasks[row] = member.task

    def _learn(self, assignment: OpenAssignment) -> None:
        """What a training's end tells: its steps, its transfers, and where it was cut off, that it is not faster."""
        if not assignment.is_training:
            return
        row, batch_size = assignment.member.row, batch_size_of(assignment)
        accepted = assignment.status is Status.ACCEPTED
        unrecorded = accepted and assignment.late and assignment.metrics.get("steps", 0.0) > len(assignment.log.step_ms)
        step_s = self._paces.stepped(row, batch_size, _mean_step_ms(assignment) if unrecorded else _step_ms(assignment))
        fetch_s = self._learn_download(assignment)
        trained_on = unrecorded or (assignment.late and not assignment.told)  # since its steps were put on record
        if accepted and step_s is not None and not assignment.message.report_only and not trained_on:
            self._paces.moved(row, "upload", assignment.update_bytes, assignment.push_s)
            steps_s = step_s * len(assignment.log.step_ms)
            self._paces.rested(row, assignment.elapsed_s - assignment.fetch_s - assignment.push_s - steps_s)
        elif assignment.status in _CUT_OFF:
            self._learn_bound(assignment, batch_size, step_s, fetch_s)
        self._unsaved.add(row)

    def _learn_download(self, assignment: OpenAssignment) -> float:
        """A download is what the coordinator saw go; the client knows better how long it took, unless it had it.

        Returns:
            The seconds that it took, 0 where none was seen.
        """
        member = assignment.member
        fetch, member.fetch = member.fetch, None
        if fetch is None or fetch.sha256 != assignment.message.model_sha256:
            return 0.0
        took_s = max(fetch.seconds, assignment.fetch_s)
        if assignment.fetch_s >= _A_MOMENT_S or fetch.size_bytes >= _LEAST_FETCHED:
            self._paces.moved(member.row, "download", fetch.size_bytes, took_s)
        return took_s

    def _learn_bound(self, assignment: OpenAssignment, batch_size: int, step_s: float | None, fetch_s: float) -> None:
        """It was cut off before its last step. What it did not tell of is longer than the time that has passed."""
        planned, taken = assignment.plan.steps, len(assignment.log.step_ms)
        if taken < planned:
            elapsed_s, still_s = assignment.elapsed_s, 0.0
            if assignment.told:  # it takes no more steps from then on
                elapsed_s = assignment.told_at - assignment.sent_at
                if not taken:  # and had sent its first one, were it done
                    still_s = assignment.elapsed_s - elapsed_s
            elif assignment.late:  # of those that it has taken since nothing is known
                elapsed_s = assignment.left_at - assignment.sent_at
            silent_s = elapsed_s - fetch_s - (step_s or 0.0) * taken
            # Where nothing was reported, all steps may be as far as one another; else the next one was under way.
            least_s = max(silent_s / (1 if taken else planned), still_s)
            self._paces.steps_take_at_least(assignment.member.row, batch_size, least_s)


def _step_ms(assignment: OpenAssignment) -> NDArray[np.float64]:
    """What its local steps took, as they were reported."""
    return np.frombuffer(assignment.log.step_ms, np.float32).astype(np.float64)


def _mean_step_ms(assignment: OpenAssignment) -> list[float]:
    """What they took on average, as the summary of its update says; nothing where it says nothing."""
    taken_s = assignment.train_s
    return [1000 * taken_s / assignment.metrics["steps"]] if taken_s > 0 else []


def batch_size_of(assignment: OpenAssignment) -> int:
    """Samples of a local step."""
    given = assignment.message.hyperparameters
    return int(from_proto(given["batch_size"]) if "batch_size" in given else DEFAULTS["batch_size"])


def steps_of(train_samples: NDArray[np.int64], hyperparameters: Hyperparameters, most: int) -> NDArray[np.int64]:
    """Local steps of many clients, by their numbers of samples.

    Args:
        train_samples: Of each client.
        hyperparameters: All of them.
        most: A bound; 0 for none.
    """
    steps = whole_steps(train_samples, hyperparameters)
    return np.minimum(steps, most) if most else steps
