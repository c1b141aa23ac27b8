"""What a study has spent of its budget, failed rounds and measurements included.

A revision is never edited and imports nothing of fedstep's: it must do tomorrow what it did today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; what is there already has spent what its committed rounds did."""
    for name in ("rounds_spent", "client_rounds_spent", "bytes_spent"):
        op.add_column("fedstep_studies", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    rounds = sa.table("fedstep_rounds", sa.column("study_id"), sa.column("cohort", sa.JSON), sa.column("payload_bytes"))
    spent: dict[int, tuple[int, int, int]] = {}
    for study_id, cohort, payload_bytes in op.get_bind().execute(sa.select(*rounds.c)).all():
        before = spent.get(study_id, (0, 0, 0))
        spent[study_id] = (before[0] + 1, before[1] + len(cohort), before[2] + payload_bytes)
    studies = sa.table(
        "fedstep_studies",
        *map(sa.column, ("id", "rounds_spent", "client_rounds_spent", "bytes_spent")),
    )
    for study_id, (count, client_rounds, payload_bytes) in spent.items():
        values = {"rounds_spent": count, "client_rounds_spent": client_rounds, "bytes_spent": payload_bytes}
        op.execute(studies.update().where(studies.c.id == study_id).values(values))
