"""Opens a database: looks before it touches anything, takes the coordinator's lock, migrates."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Engine, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from fedstep.common.errors import StorageError
from fedstep.server.storage.engine import is_file, make_engine, writing
from fedstep.server.storage.faults import parse_url, storage_error, where
from fedstep.server.storage.lock import CoordinatorLock, acquire_lock
from fedstep.server.storage.migrate import migrate
from fedstep.server.storage.schema import FORMAT, MetaRow

_OPTUNA_TABLES = {"studies", "trials", "version_info"}
_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True)
class Database:
    """An open database, ours alone.

    Attributes:
        url: Where it is.
        engine: Makes connections.
        lock: Keeps other coordinators out.
    """

    url: URL
    engine: Engine
    lock: CoordinatorLock

    def close(self) -> None:
        """Closes every connection, then lets the next coordinator in."""
        self.engine.dispose()
        self.lock.release()


def open_database(url: str, lock_timeout_s: float) -> Database:
    """Opens the database, made and migrated where it must be.

    Args:
        url: SQLAlchemy's, such as `sqlite:///fedstep.db`.
        lock_timeout_s: How long to wait for another program's lock.

    Raises:
        StorageError: It cannot be used as it is; one sentence with the fix.
    """
    parsed = parse_url(url)
    if is_file(parsed):
        _check_file(parsed)
    _look(parsed, lock_timeout_s)
    lock = acquire_lock(parsed)
    try:
        return Database(parsed, _migrated(parsed, lock_timeout_s), lock)
    except BaseException:
        lock.release()
        raise


def _migrated(url: URL, lock_timeout_s: float) -> Engine:
    engine = make_engine(url, lock_timeout_s)
    try:
        with writing(engine).begin() as connection:
            migrate(connection, where(url))
        return engine
    except SQLAlchemyError as error:
        engine.dispose()
        raise storage_error(error, url) from error
    except BaseException:
        engine.dispose()
        raise


def _check_file(url: URL) -> None:
    """What SQLite itself would say less well, and what it would only find out after making the file."""
    name = url.database or ""
    if name.startswith("file:") or url.query:
        raise StorageError(f"{name} is given with options, which fedstep does not take: write sqlite:///PATH alone.")
    path = Path(name)
    if not path.parent.is_dir():
        raise StorageError(
            f"The folder {path.parent} for the database {path} does not exist: "
            f"make it with `mkdir -p {path.parent}`, or give another path."
        )
    if path.is_dir():
        raise StorageError(f"The database {path} is a folder: give the path of a file, such as {path / 'fedstep.db'}.")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StorageError(
            f"The database {path} may not be written to: give this user the right to write it and its folder, "
            "or give another path."
        )
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_SQLITE_MAGIC))
        if start and start != _SQLITE_MAGIC:
            raise StorageError(
                f"The file {path} is not a database: give the path of a fedstep database, or of a file yet to be made."
            )


def _look(url: URL, lock_timeout_s: float) -> None:
    """Refuses a database that is something else's, without changing it."""
    if is_file(url) and not Path(url.database or "").exists():
        return
    engine = make_engine(url, lock_timeout_s, bare=True)
    try:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names())
            known = tables >= _OPTUNA_TABLES
            if MetaRow.__tablename__ in tables:
                known = connection.scalar(select(MetaRow.value).where(MetaRow.key == "format")) == FORMAT
    except SQLAlchemyError as error:
        raise storage_error(error, url) from error
    finally:
        engine.dispose()
    if tables and not known:
        example = ", ".join(sorted(tables)[:3])
        raise StorageError(
            f"The database {where(url)} is something else's (it has the tables {example}) and was left as it is: "
            "give fedstep a database of its own."
        )
