"""Optuna's tables in the coordinator's database."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from fedstep.common.errors import StorageError
from fedstep.server.storage.faults import where

_BUSY_TIMEOUT_S = 30

DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
"""What Optuna raises when the database fails."""


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage, its tables made where there are none.

    Args:
        url: SQLAlchemy's URL of the coordinator's database. Optuna's tables stand beside fedstep's, under names of
            their own.

    Raises:
        StorageError: The database cannot be used.
    """
    with explained(url):
        try:
            return _open(url)
        except (RuntimeError, ImportError) as error:  # tables of another Optuna; no driver for such a database
            raise _unusable(url, error) from error


DELIVERED = "delivered"
"""The user attribute of an Optuna study that says which trial's model the study of fedstep ended with."""


def name_value(study: optuna.Study, name: str) -> None:
    """Says what the study's values are, for its axes in a dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([name])


def is_in_memory(url: str) -> bool:
    """Whether nobody else can open what is written there."""
    return url.startswith("sqlite") and make_url(url).database in (None, "", ":memory:")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Says what a person can do about a database that fails.

    Raises:
        StorageError: The block raised one of DATABASE_ERRORS.
    """
    try:
        yield
    except DATABASE_ERRORS as error:
        raise _unusable(url, error) from error


def _unusable(url: str, error: Exception) -> StorageError:
    cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
    reason = str(getattr(cause, "orig", None) or cause).split("\n")[0].rstrip(".")
    return StorageError(
        f"Optuna cannot use the database {_shown(url)} ({reason}): "
        "check the URL, the rights on it and what else holds it."
    )


def _open(url: str) -> RDBStorage:
    if not url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    if is_in_memory(url):
        return RDBStorage(url, engine_kwargs={"poolclass": StaticPool, "connect_args": {"check_same_thread": False}})
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_TIMEOUT_S}})
    event.listen(storage.engine, "connect", _without_waiting_for_the_disk)
    storage.engine.dispose()  # the connection that made the tables has not heard it
    return storage


def _without_waiting_for_the_disk(connection: DBAPIConnection, _: object) -> None:
    """Saves ten waits for the disk a trial: Optuna commits every value apart.

    A killed coordinator loses nothing by it. A machine that loses power may lose the last values here, never whole
    tables; what the store committed is then trained on without them.
    """
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _shown(url: str) -> str:
    try:
        return where(make_url(url))
    except SQLAlchemyError:
        return "given"


@contextmanager
def without_info() -> Iterator[None]:
    """Keeps Optuna from announcing a new study on standard error; nobody else's logging changes."""
    names = ("storages._rdb.storage", "storages._in_memory", "study.study")
    loggers = [logging.getLogger(f"optuna.{name}") for name in names]

    def heard(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO

    for logger in loggers:
        logger.addFilter(heard)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(heard)
