"""The password of a database, from a file: everybody on a machine reads command lines."""

from pathlib import Path

from fedstep.common.errors import StorageError
from fedstep.server.storage.faults import parse_url, where


def with_password(url: str, file: Path) -> str:
    """The URL with the password in it.

    Args:
        url: SQLAlchemy's, of a server, without a password.
        file: Holds it, and nothing else; a line's end is not part of it.

    Raises:
        StorageError: The file cannot be read or is empty, or the URL takes no password or has one.
    """
    if not url:
        raise StorageError(
            f"--database-password-file {file} is given without --database: give the URL of the database that it is for."
        )
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        raise StorageError(f"SQLite takes no password: leave --database-password-file {file} out.")
    if parsed.password:
        raise StorageError(
            f"The database {where(parsed)} has a password in its URL and another in --database-password-file {file}: "
            "leave one out."
        )
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is no plain text"
        raise StorageError(
            f"The password of the database cannot be read from {file} ({why}): give a file that holds it."
        ) from error
    if not password:
        raise StorageError(f"The file {file} is empty: write the password of the database into it.")
    return parsed.set(password=password).render_as_string(hide_password=False)
