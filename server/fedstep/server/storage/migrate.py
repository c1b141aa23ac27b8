"""Brings a database to the newest schema, in code: a user needs no alembic.ini."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from fedstep.common.errors import StorageError
from fedstep.server.storage.schema import VERSION_TABLE


def migrate(connection: Connection, where: str) -> None:
    """Applies every revision that the database lacks, inside the connection's transaction.

    Args:
        connection: In a transaction; the caller commits.
        where: The database, for the sentence.

    Raises:
        StorageError: The database was made by a newer fedstep.
    """
    config = Config()
    # Not resolved through %-interpolation's parser: a folder may have a % in its name.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StorageError(
            f"The database {where} has schema {current}, made by a newer fedstep than this one: "
            "upgrade with `pip install --upgrade fedstep`, or give another database."
        )
    command.upgrade(config, "head")
