"""One coordinator per database: the second is refused, and one that was killed leaves nothing behind.

The lock belongs to the process (a lock of the operating system's on a file) or to its connection (an advisory lock
of the server's), so whoever holds it lives. There are no leases and no clocks.
"""

import hashlib
import json
import os
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fedstep.common.errors import StorageError
from fedstep.server.storage.engine import is_file, is_in_memory, make_engine
from fedstep.server.storage.faults import storage_error, where

# A server needs a moment to see that a killed process's connection is gone.
_PATIENCE_S = 3
_POSTGRESQL_KEY = 0x6665_6473_7465_7001  # "fedstep", 1


class CoordinatorLock(ABC):
    """The right to be the one coordinator of a database, held from `acquire_lock` to `release`."""

    @abstractmethod
    def ensure(self) -> None:
        """Called before every write: the lock is still held, or taken again where a connection broke.

        Raises:
            StorageError: Another coordinator took it in between, or the server does not answer.
        """

    @abstractmethod
    def release(self) -> None:
        """Lets the next coordinator in. A second call does nothing."""


def acquire_lock(url: URL) -> CoordinatorLock:
    """Takes the lock that suits the database.

    Raises:
        StorageError: Another coordinator holds it; the sentence says which, where that is known.
    """
    if is_file(url):
        return FileCoordinatorLock(Path(url.database or ""))
    if url.get_backend_name() == "postgresql":
        return PostgresqlLock(url)
    if url.get_backend_name() in ("mysql", "mariadb"):
        return MysqlLock(url)
    if is_in_memory(url):
        return NoLock()
    raise StorageError(
        f"fedstep cannot keep a second coordinator off {where(url)}: use sqlite, postgresql or mysql instead."
    )


class NoLock(CoordinatorLock):
    """For a database in memory, which no other process sees."""

    def ensure(self) -> None:
        """It cannot be lost."""

    def release(self) -> None:
        """There is nothing to let go."""


class FileCoordinatorLock(CoordinatorLock):
    """A lock on `<database>.lock`; `<database>.holder` says who has it, for the sentence only."""

    def __init__(self, database: Path) -> None:
        # One file may go by several names; the lock may not.
        real = database.resolve()
        self._holder = real.with_name(real.name + ".holder")
        self._lock = FileLock(real.with_name(real.name + ".lock"), thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except (Timeout, OSError, NotImplementedError) as error:
            # filelock also calls it a timeout when the file cannot be made.
            if isinstance(error, Timeout) and os.path.exists(self._lock.lock_file):
                raise _refused(str(database), self._read_holder()) from error
            raise StorageError(
                f"The file {self._lock.lock_file} cannot be made or locked: "
                "give a database in a folder that this user may write to."
            ) from error
        with suppress(OSError):  # only for the sentence
            self._holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))

    def ensure(self) -> None:
        """The operating system keeps it as long as this process lives."""

    def release(self) -> None:
        """Lets go; the lock file stays, because removing it would let two in."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def _read_holder(self) -> str:
        try:
            holder = json.loads(self._holder.read_text())
            return f"on {holder['host']}, process {holder['pid']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""


class ServerLock(CoordinatorLock):
    """A lock that the server ties to one connection of ours, which does nothing else."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine: Engine = make_engine(url, _PATIENCE_S, bare=True)
        self._connection: Connection | None = None
        try:
            self._take()
        except StorageError:
            self.release()
            raise

    @abstractmethod
    def _try(self, connection: Connection) -> bool:
        """Takes the lock within `_PATIENCE_S`; False when another connection keeps it."""

    @abstractmethod
    def _holder_of(self, connection: Connection) -> str:
        """Who keeps it, in words; "" when the server does not say."""

    def ensure(self) -> None:
        """Asks the server; the lock lives and dies with its connection."""
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                return
            except SQLAlchemyError:
                self.release()
        self._take()

    def release(self) -> None:
        """Closes the connection, and with it the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()
        self._engine.dispose()

    def _take(self) -> None:
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                if self._try(connection):
                    self._connection = connection
                    return
                holder = self._holder_of(connection)
            finally:
                if self._connection is None:
                    connection.close()
        except SQLAlchemyError as error:
            raise storage_error(error, self._url) from error
        raise _refused(where(self._url), holder)


class PostgresqlLock(ServerLock):
    """An advisory lock of PostgreSQL's, one per database, held by a session."""

    def _try(self, connection: Connection) -> bool:
        # Without these a coordinator whose machine lost its power would hold the lock for two hours.
        for name, value in (("idle", 30), ("interval", 10), ("count", 3)):
            connection.execute(text(f"SET tcp_keepalives_{name} = {value}"))
        mark = f"fedstep {socket.gethostname()[:40]} {os.getpid()}"
        connection.execute(text("SELECT set_config('application_name', :mark, false)"), {"mark": mark})
        try:
            # Waits as long as make_engine's lock_timeout.
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _POSTGRESQL_KEY})
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") == "55P03":  # lock_not_available
                return False
            raise
        return True

    def _holder_of(self, connection: Connection) -> str:
        query = text(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
            "AND l.classid::bigint = :high AND l.objid::bigint = :low "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        key = {"high": _POSTGRESQL_KEY >> 32, "low": _POSTGRESQL_KEY & 0xFFFF_FFFF}
        words = str(connection.execute(query, key).scalar() or "").split()
        return f"on {words[1]}, process {words[2]}" if len(words) == 3 and words[0] == "fedstep" else ""


class MysqlLock(ServerLock):
    """A named lock of MySQL's or MariaDB's. Its names are the whole server's, so the database is in it."""

    def _name(self) -> str:
        return "fedstep-" + hashlib.sha256((self._url.database or "").encode()).hexdigest()[:40]

    def _try(self, connection: Connection) -> bool:
        query = text("SELECT GET_LOCK(:name, :wait)")
        return connection.execute(query, {"name": self._name(), "wait": _PATIENCE_S}).scalar() == 1

    def _holder_of(self, connection: Connection) -> str:
        query = text("SELECT host FROM information_schema.processlist WHERE id = IS_USED_LOCK(:name)")
        host = connection.execute(query, {"name": self._name()}).scalar()
        return f"at {host}" if host else ""


def _refused(database: str, holder: str) -> StorageError:
    return StorageError(
        f"The database {database} is in use by another coordinator{f' ({holder})' if holder else ''}: "
        "stop that one first, or give this one another database with --database."
    )
