"""What went wrong with a database, in one sentence with the fix. A password is never part of it."""

import difflib

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from fedstep.common.errors import StorageError

_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")

# What drivers say, in lower case, and what it means to a person.
_SQLITE = {
    "file is not a database": "is not a database: give the path of a fedstep database, or of a file yet to be made",
    "malformed": "is damaged: restore it from a copy, or give another path and start anew",
    "database is locked": "is locked by another program: close what has it open (a database browser?) and try again",
    "unable to open": "cannot be opened: check that its folder exists and may be written to",
    "readonly": "may not be written to: give this user the right to write it and its folder, or another path",
    "disk is full": "has no room left on its disk: make some and start again, nothing committed is lost",
    "disk i/o error": "cannot be read or written (disk I/O error): check the disk and its free space",
}
_REFUSED = "did not take the user name or password: correct them in the URL or in --database-password-file"
_GONE = "has gone away in the middle of its work: see that its server is up again; nothing committed is lost"
_SERVER = {
    "password": _REFUSED,
    "access denied": _REFUSED,
    "authentication failed": _REFUSED,
    "permission denied": "does not let this user do what fedstep needs: give it the right to create tables",
    "unknown database": "does not exist: create it first, or name another in the URL",
    "connection refused": "cannot be reached (connection refused): start the server, or correct host and port",
    "no such file or directory": "cannot be reached (no such socket): start the server, or correct the host",
    "terminating connection": _GONE,
    "closed the connection": _GONE,
    "connection is lost": _GONE,
    "shutting down": _GONE,
    "starting up": _GONE,
    "resolve": "cannot be reached (unknown host): correct the host in the URL",
    "name or service not known": "cannot be reached (unknown host): correct the host in the URL",
    "timeout": "did not answer in time: check that it is up and not overloaded, and try again",
    "lock not available": "is locked by another program: end what holds its tables, and try again",
}


def parse_url(text: str) -> URL:
    """The URL of a database.

    Raises:
        StorageError: It is none.
    """
    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:
        # Whatever it is, it may hold a password: only what cannot is repeated.
        shown = f"{text!r} is no database URL" if "@" not in text and not _is_secret(text) else "No database URL"
        raise StorageError(
            f"{shown}: write sqlite:///fedstep.db, or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE."
        ) from error


def _is_secret(text: str) -> bool:
    return any(word in text.lower() for word in ("pass", "pwd", "secret", "token", "odbc_connect"))


def where(url: URL) -> str:
    """The database in words: a path, or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or "in memory"
    secret = [key for key in url.query if _is_secret(key) and key != "passfile"]  # a path
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def engine_error(error: Exception, url: URL) -> StorageError:
    """For a URL that no engine could be made of."""
    if isinstance(error, NoSuchModuleError):
        near = difflib.get_close_matches(url.drivername.split("+")[0], _DIALECTS, n=1)
        return StorageError(
            f"{url.drivername!r} is no kind of database that SQLAlchemy knows: "
            f"{f'did you mean {near[0]!r}?' if near else 'fedstep is tested with sqlite and postgresql.'}"
        )
    if isinstance(error, ModuleNotFoundError):
        return StorageError(f"The Python driver {error.name!r} for {where(url)} is not installed: {_driver_fix(url)}.")
    return StorageError(f"No connection can be made from {where(url)}: {_redacted(str(error), url)}")


def _driver_fix(url: URL) -> str:
    if url.get_backend_name() != "postgresql":
        return "install it with pip, or give another database"
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return 'pip install "fedstep[postgres]"'
    return 'pip install "fedstep[postgres]" and begin the URL with postgresql+psycopg://'


def storage_error(error: SQLAlchemyError, url: URL) -> StorageError:
    """For what a driver raised.

    Args:
        error: What SQLAlchemy made of it.
        url: The database.
    """
    detail = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    known = _SQLITE if url.get_backend_name() == "sqlite" else _SERVER
    for words, meaning in known.items():
        if words in detail.lower():
            return StorageError(f"The database {where(url)} {meaning}.")
    if "does not exist" in detail and f'"{url.database}"' in detail:
        return StorageError(f"The database {where(url)} does not exist: create it with `createdb {url.database}`.")
    return StorageError(f"The database {where(url)} cannot be used: {_redacted(detail, url)}")


def _redacted(detail: str, url: URL) -> str:
    """One line of what the driver said, ending in a full stop."""
    line = " ".join(detail.split())[:300].rstrip(".") + "."
    secrets = [url.password, *(value for key, value in url.query.items() if _is_secret(key))]
    for secret in secrets:
        if secret:
            line = line.replace(str(secret), "***")
    return line
