"""How fast clients are.

A revision is never edited and imports nothing of fedstep's: it must do tomorrow what it did today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table; nobody's pace is known yet."""
    name = (
        sa.String(255)
        .with_variant(sa.String(255, collation="C"), "postgresql")
        .with_variant(sa.String(255, collation="utf8mb4_bin"), "mysql", "mariadb")
    )
    op.create_table(
        "fedstep_paces",
        sa.Column("client", name, nullable=False),
        sa.Column("pace", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("client", name="pk_fedstep_paces"),
    )
