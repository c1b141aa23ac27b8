"""Connections to the database: how they are made and how a transaction on them begins."""

from sqlalchemy import URL, Connection, Engine, NullPool, Pool, StaticPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fedstep.server.storage.faults import engine_error

_BEGIN = "fedstep_begin"
CONNECT_TIMEOUT_S = 10


def is_file(url: URL) -> bool:
    """Whether the database is a file on this machine."""
    return url.get_backend_name() == "sqlite" and not is_in_memory(url)


def is_in_memory(url: URL) -> bool:
    """Whether the database goes with the process."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def make_engine(url: URL, lock_timeout_s: float, *, bare: bool = False) -> Engine:
    """An engine for a store: any thread may use it, and no wait on it is endless.

    Args:
        url: The database.
        lock_timeout_s: How long a statement waits for what another connection has locked.
        bare: Nothing is set that would change the file, such as its journal; every connection is closed after use.

    Raises:
        StorageError: The kind of database is unknown, or its driver is not installed.
    """
    pool: type[Pool] | None = StaticPool if is_in_memory(url) else NullPool if bare else None
    try:
        match url.get_backend_name():
            case "sqlite":
                # The driver's own check of threads is off: the store is called from one thread at a time.
                engine = create_engine(
                    url, poolclass=pool, connect_args={"check_same_thread": False, "timeout": lock_timeout_s}
                )
                _prepare_sqlite(engine, bare)
            case "postgresql" | "mysql" | "mariadb" as kind:
                wait_s = max(1, round(lock_timeout_s))
                setting = f"SET lock_timeout = '{wait_s}s'"
                if kind != "postgresql":
                    setting = f"SET SESSION innodb_lock_wait_timeout = {wait_s}"
                engine = create_engine(
                    url, poolclass=pool, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_TIMEOUT_S}
                )
                _prepare_server(engine, setting)
            case _:
                engine = create_engine(url, poolclass=pool, pool_pre_ping=True)
    except (SQLAlchemyError, ImportError) as error:
        raise engine_error(error, url) from error
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take the right to write when they begin.

    On SQLite a transaction that read first cannot wait for another writer: it fails at once, whatever the timeout.
    """
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def _prepare_sqlite(engine: Engine, bare: bool) -> None:
    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # Transactions are begun below, not by the driver, which would leave reads and DDL outside of them.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        if not bare:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")  # a model goes once it is committed that nobody needs it
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _prepare_server(engine: Engine, setting: str) -> None:
    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(setting)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", connect)
