"""The store on any database that SQLAlchemy speaks: SQLite, PostgreSQL, MySQL."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, null, select, tuple_
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError, StatementError
from sqlalchemy.orm import Session

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
    Store,
    StudyRecord,
    StudyState,
    TrialRecord,
)
from fedstep.server.storage.costs import ArmCost, Overhead
from fedstep.server.storage.database import open_database
from fedstep.server.storage.engine import writing
from fedstep.server.storage.faults import storage_error, where
from fedstep.server.storage.schema import (
    AssignmentRow,
    ClientRow,
    CostRow,
    EventRow,
    MetaRow,
    PaceRow,
    RoundRow,
    StepsRow,
    StudyRow,
    TrialRow,
)

_PAGE = 32  # assignments, each with all its steps
_PAGE_WITHOUT_STEPS = 1000
_NAMES_SHOWN = 10
_NAMES_AT_ONCE = 500  # below every database's limit of parameters in a statement


def open_store(url: str, clock: Clock | None = None) -> Store:
    """The store at that URL, made and migrated where it must be, and closed to every other coordinator.

    Args:
        url: SQLAlchemy's: `sqlite:///fedstep.db`, `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`.
        clock: For the times of events and studies.

    Raises:
        StorageError: The database cannot be used as it is; one sentence with the fix.
    """
    return SqlStore(url, clock or SystemClock())


class SqlStore(Store):
    """A store in a relational database, which Optuna's tables may share.

    Args:
        url: As for `open_store`.
        clock: For the times of events and studies.
        lock_timeout_s: How long a call waits for another program that has the database locked.

    Raises:
        StorageError: As for `open_store`; any call raises it when the database fails.
    """

    def __init__(self, url: str, clock: Clock, lock_timeout_s: float = 10.0) -> None:
        self._clock = clock
        self._database = open_database(url, lock_timeout_s)
        self._writer = writing(self._database.engine)
        self._closed = False

    def identity(self) -> str:
        """See `Store.identity`."""
        with self._writing() as session:
            row = session.get(MetaRow, "id")
            if row is None:
                row = MetaRow(key="id", value=uuid.uuid4().hex)
                session.add(row)
            return row.value

    def create_study(self, spec: StudySpec) -> StudyRecord:
        """A new study, RUNNING."""
        now = self._clock.now()
        with self._writing() as session:
            if session.scalar(select(StudyRow.id).where(StudyRow.name == spec.name)) is not None:
                raise AlreadyExistsError(f"There is a study named {spec.name} already: give this one another name.")
            row = StudyRow(
                name=spec.name,
                spec=records.spec_to_json(spec),
                state=StudyState.RUNNING.value,
                message="",
                tuner_state={},
                seconds_spent=0.0,
                rounds_spent=0,
                client_rounds_spent=0,
                bytes_spent=0,
                tuner_seconds=0.0,
                tuner_cpu_seconds=0.0,
                commit_seconds=0.0,
                cpu_seconds=0.0,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
        return StudyRecord(spec, StudyState.RUNNING, now, now)

    def study(self, name: str) -> StudyRecord:
        """The study of that name."""
        with self._reading() as session:
            return records.study_record(_study(session, name))

    def studies(self, after: str = "", limit: int = 100) -> list[StudyRecord]:
        """Studies by name, from the first name greater than `after` on."""
        query = select(StudyRow).where(StudyRow.name > after).order_by(StudyRow.name).limit(limit)
        with self._reading() as session:
            return [records.study_record(row) for row in session.scalars(query)]

    def commit(self, study: str, change: Change) -> list[Event]:
        """Writes the change, whole or not at all, and gives its events their numbers."""
        now = self._clock.now()
        with self._writing() as session:
            row = _study(session, study)
            _write_trials(session, row.id, change.trials)
            if change.round is not None:
                _write_round(session, row, change.round)
            _write_assignments(session, row.id, change.assignments)
            first = 1 + (session.scalar(select(func.max(EventRow.number))) or 0)
            events = [records.numbered(event, first + i, now) for i, event in enumerate(change.events)]
            _insert(session, EventRow, [records.event_columns(row.id, event) for event in events])
            if change.tuner_state is not None:
                row.tuner_state = change.tuner_state
            if change.state is not None:
                row.state, row.message = change.state.value, change.message
            if change.result is not None:
                row.result = records.result_to_json(change.result)
            row.seconds_spent += change.seconds
            row.rounds_spent += change.spent.rounds
            row.client_rounds_spent += change.spent.client_rounds
            row.bytes_spent += change.spent.payload_bytes
            row.tuner_seconds += change.overhead.tuner_seconds
            row.tuner_cpu_seconds += change.overhead.tuner_cpu_seconds
            row.commit_seconds += change.overhead.commit_seconds
            row.cpu_seconds += change.overhead.cpu_seconds
            if change.cost is not None:
                _add_cost(session, row.id, change.cost)
            row.updated_at = now
        return events

    def costs(self, study: str) -> list[ArmCost]:
        """What each trial has cost that has cost anything, by number."""
        with self._reading() as session:
            query = select(CostRow).where(CostRow.study_id == _study(session, study).id).order_by(CostRow.trial)
            return [records.arm_cost(row) for row in session.scalars(query)]

    def overhead(self, study: str) -> Overhead:
        """What the coordinator itself has spent on a study, in all its lives."""
        with self._reading() as session:
            return records.overhead(_study(session, study))

    def trials(self, study: str, after: int = -1, limit: int = 1000) -> list[TrialRecord]:
        """Trials by number, from the first number greater than `after` on."""
        with self._reading() as session:
            mine = TrialRow.study_id == _study(session, study).id
            query = select(TrialRow).where(mine, TrialRow.number > after).order_by(TrialRow.number).limit(limit)
            return [records.trial_record(row) for row in session.scalars(query)]

    def rounds(self, study: str, trial: int | None = None) -> list[RoundRecord]:
        """Committed rounds, by trial and round."""
        with self._reading() as session:
            query = select(RoundRow).where(RoundRow.study_id == _study(session, study).id)
            if trial is not None:
                query = query.where(RoundRow.trial == trial)
            rows = session.scalars(query.order_by(RoundRow.trial, RoundRow.round))
            return [records.round_record(row) for row in rows]

    def assignments(
        self,
        study: str,
        trial: int | None = None,
        round: int | None = None,
        client: str = "",
        with_steps: bool = True,
    ) -> Iterator[AssignmentRecord]:
        """Assignments with their steps, or without, by trial, round and client, read a page at a time.

        Each page is a transaction of its own: a reader that pauses holds nothing, in whichever thread it goes on.
        """
        with self._reading() as session:  # now, not when the first one is asked for: the name may be unknown
            chosen = [AssignmentRow.study_id == _study(session, study).id]
        if trial is not None:
            chosen.append(AssignmentRow.trial == trial)
        if round is not None:
            chosen.append(AssignmentRow.round == round)
        if client:
            chosen.append(AssignmentRow.client == client)
        return self._pages(chosen, with_steps)

    def _pages(self, chosen: Sequence[ColumnElement[bool]], with_steps: bool) -> Iterator[AssignmentRecord]:
        order = (
            AssignmentRow.trial,
            AssignmentRow.round,
            AssignmentRow.client,
            AssignmentRow.attempt,
            AssignmentRow.assignment_id,
        )
        size = _PAGE if with_steps else _PAGE_WITHOUT_STEPS
        rows = (
            select(AssignmentRow, StepsRow).outerjoin(StepsRow, StepsRow.assignment_id == AssignmentRow.assignment_id)
            if with_steps
            else select(AssignmentRow, null())
        )
        page = query = rows.where(*chosen).order_by(*order).limit(size)
        while True:
            with self._reading() as session:
                found = [records.assignment_record(row, steps) for row, steps in session.execute(page)]
            yield from found
            if len(found) < size:
                return
            last = found[-1]
            place = (last.trial, last.round, last.client, last.attempt, last.assignment_id)
            page = query.where(tuple_(*order) > place)

    def events(self, study: str, after: int = 0, limit: int = 1000, kind: str = "") -> list[Event]:
        """Events by number, from the first number greater than `after` on; those of one kind, where it is given."""
        with self._reading() as session:
            mine = EventRow.study_id == _study(session, study).id
            query = select(EventRow).where(mine, EventRow.number > after).order_by(EventRow.number).limit(limit)
            if kind:
                query = query.where(EventRow.kind == kind)
            return [records.event_record(row) for row in session.scalars(query)]

    def save_clients(self, clients: Sequence[ClientRecord]) -> None:
        """Adds or replaces what is kept of these clients."""
        rows = {client.name: records.client_columns(client) for client in clients}
        with self._writing() as session:
            _delete_names(session, ClientRow, ClientRow.name, list(rows))
            _insert(session, ClientRow, list(rows.values()))

    def clients(self) -> list[ClientRecord]:
        """Every client ever seen, by name."""
        with self._reading() as session:
            return [records.client_record(row) for row in session.scalars(select(ClientRow).order_by(ClientRow.name))]

    def save_paces(self, paces: Sequence[PaceRecord]) -> None:
        """Adds or replaces what is known of these clients' paces."""
        rows = {record.client: records.pace_columns(record) for record in paces}
        with self._writing() as session:
            _delete_names(session, PaceRow, PaceRow.client, list(rows))
            _insert(session, PaceRow, list(rows.values()))

    def paces(self) -> list[PaceRecord]:
        """Every pace that is known, by the client's name."""
        with self._reading() as session:
            return [records.pace_record(row) for row in session.scalars(select(PaceRow).order_by(PaceRow.client))]

    def close(self) -> None:
        """Lets go of the database; a second call does nothing."""
        self._closed = True
        self._database.close()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._told(), Session(self._database.engine) as session, session.begin():
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._told():
            self._database.lock.ensure()
            with Session(self._writer) as session, session.begin():
                yield session

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what a driver raises into a sentence. What cannot be written at all, a caller should not have given."""
        if self._closed:
            raise StorageError(f"The store on {where(self._database.url)} is closed: open it anew.")
        try:
            yield
        except DBAPIError as error:
            raise storage_error(error, self._database.url) from error
        except (StatementError, TypeError, ValueError, OverflowError) as error:
            raise InternalError(
                f"A record cannot be kept as it is, which is a fault of fedstep's own: {error}."
            ) from error
        except SQLAlchemyError as error:
            raise storage_error(error, self._database.url) from error


def _study(session: Session, name: str) -> StudyRow:
    row = session.scalar(select(StudyRow).where(StudyRow.name == name))
    if row is not None:
        return row
    names = list(session.scalars(select(StudyRow.name).order_by(StudyRow.name).limit(_NAMES_SHOWN + 1)))
    if not names:
        raise NotFoundError(f"There is no study named {name!r}, nor any other: start one with `fedstep study run`.")
    shown = ", ".join(names[:_NAMES_SHOWN]) + (" and more" if len(names) > _NAMES_SHOWN else "")
    raise NotFoundError(f"There is no study named {name!r}: there is {shown}.")


def _write_trials(session: Session, study_id: int, trials: Sequence[TrialRecord]) -> None:
    for trial in trials:
        session.execute(delete(TrialRow).where(TrialRow.study_id == study_id, TrialRow.number == trial.number))
        _insert(session, TrialRow, [records.trial_columns(study_id, trial)])


def _add_cost(session: Session, study_id: int, cost: ArmCost) -> None:
    row = session.get(CostRow, (study_id, cost.trial))
    if row is None:
        session.add(CostRow(study_id=study_id, **vars(cost)))
        return
    total = records.arm_cost(row) + cost
    for name, value in vars(total).items():
        setattr(row, name, value)


def _write_round(session: Session, study: StudyRow, record: RoundRecord) -> None:
    if session.get(RoundRow, (study.id, record.trial, record.round)) is not None:
        raise AlreadyExistsError(
            f"Round {record.round} of trial {record.trial} of the study {study.name} was committed before."
        )
    _insert(session, RoundRow, [records.round_columns(study.id, record)])


def _write_assignments(session: Session, study_id: int, assignments: Sequence[AssignmentRecord]) -> None:
    _insert(session, AssignmentRow, [records.assignment_columns(study_id, record) for record in assignments])
    steps = [(record.assignment_id, record.steps) for record in assignments]
    _insert(session, StepsRow, [records.steps_columns(key, value) for key, value in steps if value is not None])


def _delete_names(session: Session, table: type[Any], column: Any, names: Sequence[str]) -> None:
    for start in range(0, len(names), _NAMES_AT_ONCE):
        session.execute(delete(table).where(column.in_(names[start : start + _NAMES_AT_ONCE])))


def _insert(session: Session, table: type[Any], rows: list[records.Columns]) -> None:
    if not rows:
        return
    try:
        session.execute(insert(table), rows)
    except IntegrityError as error:
        raise AlreadyExistsError(f"A row of {table.__tablename__} exists already: {error.orig}.") from error
