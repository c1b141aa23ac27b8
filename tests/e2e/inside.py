"""A coordinator on the test's own event loop: real sockets and a real database, without the cost of a process."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from e2e.tiny import Tiny
from e2e.waiting import PATIENCE_S, until_true

from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.server.coordination.fleet import LeasePolicy
from fedstep.server.coordinator import Coordinator, CoordinatorConfig
from fedstep.server.protection import Protection
from fedstep.server.storage.base import AssignmentRecord, Event, RoundRecord, StudyRecord, StudyState, TrialRecord

SHORT_LEASE = LeasePolicy(lease=timedelta(seconds=1.5), heartbeat_interval=timedelta(seconds=0.3))


class Inside:
    """A coordinator that runs, and what a test asks it."""

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self.coordinator = coordinator
        self.folder = folder

    @property
    def address(self) -> str:
        return self.coordinator.address

    async def create(self, spec: StudySpec) -> StudyRecord:
        assert self.coordinator.studies is not None
        return await self.coordinator.studies.create(spec)

    async def stop(self, name: str) -> StudyRecord:
        assert self.coordinator.studies is not None
        return await self.coordinator.studies.stop(name)

    async def record(self, name: str) -> StudyRecord:
        found: StudyRecord = await self._store("study", name)
        return found

    async def events(self, name: str, *kinds: str) -> list[Event]:
        """A study's events, of these kinds only when some are given."""
        found: list[Event] = await self._store("events", name)
        return [event for event in found if not kinds or event.kind in kinds]

    async def trials(self, name: str) -> list[TrialRecord]:
        found: list[TrialRecord] = await self._store("trials", name)
        return found

    async def rounds(self, name: str) -> list[RoundRecord]:
        found: list[RoundRecord] = await self._store("rounds", name)
        return found

    async def assignments(self, name: str, client: str = "") -> list[AssignmentRecord]:
        store = self.coordinator.parts.store
        return await self.coordinator.parts.executors.storage.run(lambda: list(store.assignments(name, client=client)))

    def faults(self, client: str) -> int:
        """As `fleet list` shows them."""
        return next(r.faults for r in self.coordinator.parts.fleet.records() if r.name == client)

    async def until_event(self, name: str, kind: str, such: Callable[[Event], bool] = lambda event: True) -> Event:
        """The first such event of that kind, once there is one."""

        async def found() -> list[Event]:
            return [event for event in await self.events(name, kind) if such(event)]

        return (await until_true(found, f"study {name} says {kind}"))[0]

    async def until_over(self, name: str, timeout_s: float = PATIENCE_S) -> StudyRecord:
        """The study once nothing more happens to it."""

        async def over() -> StudyRecord | None:
            record = await self.record(name)
            assert self.coordinator.studies is not None
            done = record.state.ended or record.state is StudyState.INTERRUPTED
            return record if done and not self.coordinator.studies.under_way(name) else None

        found = await until_true(over, f"study {name} is over", timeout_s)
        assert found is not None
        return found

    async def _store(self, method: str, *arguments: Any) -> Any:
        parts = self.coordinator.parts
        return await parts.executors.storage.run(getattr(parts.store, method), *arguments)


@asynccontextmanager
async def inside(
    folder: Path,
    tasks: Sequence[Task] = (),
    lease: LeasePolicy | None = None,
    port: int = 0,
    host: str = "127.0.0.1",
    protection: Protection | None = None,
    database: str = "",
) -> AsyncIterator[Inside]:
    """A coordinator with the tiny task, and others, until the block ends; on SQLite unless a database is given."""
    known: dict[str, Task] = {task.name: task for task in (Tiny(), *tasks)}
    config = CoordinatorConfig(
        folder,
        known,
        host=host,
        port=port,
        database_url=database,
        lease=lease or LeasePolicy(),
        protection=protection or Protection(),
    )
    coordinator = Coordinator(config)
    await coordinator.start()
    try:
        yield Inside(coordinator, folder)
    finally:
        await coordinator.shut_down()


def query(folder: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a person who opens the study database reads there."""
    with closing(sqlite3.connect(f"file:{folder / 'fedstep.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()
