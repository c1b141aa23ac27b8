"""Run by Alembic, never imported: migrates the connection that `migrate.py` hands over."""

from typing import Any

from alembic import context

from fedstep.server.storage.schema import PREFIX, VERSION_TABLE, Base


def _ours(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Optuna's tables in the same database are not ours to change."""
    return kind != "table" or (name or "").startswith(PREFIX)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_object=_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
