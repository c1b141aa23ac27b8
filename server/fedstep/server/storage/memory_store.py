"""The store in memory, for simulations: what is committed goes with the process."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fedstep.common.clock import Clock, SystemClock
from fedstep.common.errors import AlreadyExistsError, InternalError, NotFoundError, StorageError
from fedstep.common.spec import StudySpec
from fedstep.server.storage import records
from fedstep.server.storage.base import (
    AssignmentRecord,
    Change,
    ClientRecord,
    Event,
    PaceRecord,
    RoundRecord,
    Steps,
    Store,
    StudyRecord,
    StudyState,
    TrialRecord,
)
from fedstep.server.storage.costs import ArmCost, Overhead

_NAMES_SHOWN = 10


@dataclass
class _Kept:
    """One study and all that belongs to it."""

    record: StudyRecord
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    rounds: dict[tuple[int, int], RoundRecord] = field(default_factory=dict)
    assignments: dict[str, AssignmentRecord] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    costs: dict[int, ArmCost] = field(default_factory=dict)
    overhead: Overhead = field(default_factory=Overhead)


@dataclass
class Memory:
    """Where memory stores keep things: the next store that is opened on it finds what the last one committed.

    Attributes:
        studies: By name.
        clients: By name.
        paces: By the client's name.
        events: The number of the last event.
        in_use: A store is open on it.
        identity: See `Store.identity`.
    """

    studies: dict[str, _Kept] = field(default_factory=dict)
    clients: dict[str, ClientRecord] = field(default_factory=dict)
    paces: dict[str, PaceRecord] = field(default_factory=dict)
    events: int = 0
    in_use: bool = False
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)


class MemoryStore(Store):
    """A store that costs microseconds a commit.

    Records are kept as they are given; none is changed after it was committed.

    Args:
        memory: Where; one of its own unless given.
        clock: For the times of events and studies.

    Raises:
        StorageError: Another store is open on that memory.
    """

    def __init__(self, memory: Memory | None = None, clock: Clock | None = None) -> None:
        self._memory = memory or Memory()
        self._clock = clock or SystemClock()
        if self._memory.in_use:
            raise StorageError("This memory is in use by another coordinator: close its store first.")
        self._memory.in_use = True
        self._closed = False

    def identity(self) -> str:
        """See `Store.identity`."""
        return self._memory.identity

    def create_study(self, spec: StudySpec) -> StudyRecord:
        """See `Store.create_study`."""
        studies = self._studies()
        if spec.name in studies:
            raise AlreadyExistsError(f"There is a study named {spec.name} already: give this one another name.")
        now = self._now()
        studies[spec.name] = _Kept(StudyRecord(spec, StudyState.RUNNING, now, now))
        return studies[spec.name].record

    def study(self, name: str) -> StudyRecord:
        """See `Store.study`."""
        return self._kept(name).record

    def studies(self, after: str = "", limit: int = 100) -> list[StudyRecord]:
        """See `Store.studies`."""
        studies = self._studies()
        return [studies[name].record for name in sorted(studies) if name > after][:limit]

    def commit(self, study: str, change: Change) -> list[Event]:
        """See `Store.commit`. Everything is checked before anything is written."""
        kept = self._kept(study)
        _check(kept, change)
        now = self._now()
        first = self._memory.events + 1
        events = [records.numbered(e, number, now) for number, e in enumerate(change.events, first)]
        self._memory.events += len(events)
        kept.events += events
        kept.trials.update((trial.number, trial) for trial in change.trials)
        if change.round is not None:
            record = replace(change.round, ended_at=change.round.ended_at.astimezone(UTC))
            kept.rounds[record.trial, record.round] = record
        kept.assignments.update((record.assignment_id, record) for record in change.assignments)
        if change.cost is not None:
            trial = change.cost.trial
            kept.costs[trial] = kept.costs.get(trial, ArmCost(trial)) + change.cost
        kept.overhead += change.overhead
        kept.record = _changed(kept.record, change, now)
        return events

    def costs(self, study: str) -> list[ArmCost]:
        """See `Store.costs`."""
        costs = self._kept(study).costs
        return [costs[trial] for trial in sorted(costs)]

    def overhead(self, study: str) -> Overhead:
        """See `Store.overhead`."""
        return self._kept(study).overhead

    def trials(self, study: str, after: int = -1, limit: int = 1000) -> list[TrialRecord]:
        """See `Store.trials`."""
        trials = self._kept(study).trials
        return [trials[number] for number in sorted(trials) if number > after][:limit]

    def rounds(self, study: str, trial: int | None = None) -> list[RoundRecord]:
        """See `Store.rounds`."""
        rounds = self._kept(study).rounds
        return [rounds[place] for place in sorted(rounds) if trial is None or place[0] == trial]

    def assignments(
        self,
        study: str,
        trial: int | None = None,
        round: int | None = None,
        client: str = "",
        with_steps: bool = True,
    ) -> Iterator[AssignmentRecord]:
        """See `Store.assignments`: those there are when it is called."""
        chosen = [
            record
            for record in self._kept(study).assignments.values()
            if trial in (None, record.trial) and round in (None, record.round) and client in ("", record.client)
        ]
        chosen.sort(key=lambda r: (r.trial, r.round, r.client, r.attempt, r.assignment_id))
        return map(_with_plain_steps if with_steps else _without_steps, chosen)

    def events(self, study: str, after: int = 0, limit: int = 1000, kind: str = "") -> list[Event]:
        """See `Store.events`."""
        events = self._kept(study).events
        return [event for event in events if event.number > after and kind in ("", event.kind)][:limit]

    def save_clients(self, clients: Sequence[ClientRecord]) -> None:
        """See `Store.save_clients`."""
        self._studies()  # raises where the store is closed
        for client in clients:
            self._memory.clients[client.name] = replace(client, last_seen_at=client.last_seen_at.astimezone(UTC))

    def clients(self) -> list[ClientRecord]:
        """See `Store.clients`."""
        self._studies()
        return [self._memory.clients[name] for name in sorted(self._memory.clients)]

    def save_paces(self, paces: Sequence[PaceRecord]) -> None:
        """See `Store.save_paces`."""
        self._studies()
        self._memory.paces.update((record.client, record) for record in paces)

    def paces(self) -> list[PaceRecord]:
        """See `Store.paces`."""
        self._studies()
        return [self._memory.paces[name] for name in sorted(self._memory.paces)]

    def close(self) -> None:
        """Lets the next store open the memory; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._memory.in_use = False

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC)

    def _studies(self) -> dict[str, _Kept]:
        if self._closed:
            raise StorageError("The store in memory is closed: open it anew.")
        return self._memory.studies

    def _kept(self, name: str) -> _Kept:
        studies = self._studies()
        if name in studies:
            return studies[name]
        names = sorted(studies)
        if not names:
            raise NotFoundError(f"There is no study named {name!r}, nor any other: simulate one first.")
        shown = ", ".join(names[:_NAMES_SHOWN]) + (" and more" if len(names) > _NAMES_SHOWN else "")
        raise NotFoundError(f"There is no study named {name!r}: there is {shown}.")


def _check(kept: _Kept, change: Change) -> None:
    """Refuses what a database would: so that a simulation shows the faults that a coordinator would have."""
    record = change.round
    if record is not None and (record.trial, record.round) in kept.rounds:
        raise AlreadyExistsError(
            f"Round {record.round} of trial {record.trial} of the study {kept.record.spec.name} was committed before."
        )
    seen: set[str] = set()
    for assignment in change.assignments:
        if assignment.assignment_id in kept.assignments or assignment.assignment_id in seen:
            raise AlreadyExistsError(f"The assignment {assignment.assignment_id} was committed before.")
        seen.add(assignment.assignment_id)
        steps = assignment.steps
        if steps is not None and not len(steps.loss) == len(steps.samples) == len(steps.step_ms):
            raise ValueError(f"the steps of assignment {assignment.assignment_id} are columns that differ in length")
    try:
        for event in change.events:
            json.dumps(event.details)
    except (TypeError, ValueError) as error:
        raise InternalError(f"An event cannot be kept as it is, which is a fault of fedstep's own: {error}.") from error


def _changed(record: StudyRecord, change: Change, now: datetime) -> StudyRecord:
    return replace(
        record,
        state=record.state if change.state is None else change.state,
        message=record.message if change.state is None else change.message,
        tuner_state=record.tuner_state if change.tuner_state is None else change.tuner_state,
        result=record.result if change.result is None else change.result,
        seconds_spent=record.seconds_spent + change.seconds,
        spent=record.spent + change.spent,
        updated_at=now,
    )


def _without_steps(record: AssignmentRecord) -> AssignmentRecord:
    return replace(record, steps=None)


def _with_plain_steps(record: AssignmentRecord) -> AssignmentRecord:
    """The steps may have been given in any kind of sequence, packed or of another library's numbers."""
    if record.steps is None:
        return record
    loss, samples, step_ms = record.steps.loss, record.steps.samples, record.steps.step_ms
    plain = Steps(tuple(map(float, loss)), tuple(map(int, samples)), tuple(map(float, step_ms)))
    return replace(record, steps=plain)
