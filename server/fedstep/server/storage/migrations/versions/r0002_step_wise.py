"""Trials that go on from others, and what a round cost in bytes.

A revision is never edited and imports nothing of fedstep's: it must do tomorrow what it did today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; what is there already are plain trials of unknown bytes."""
    op.add_column("fedstep_trials", sa.Column("first_round", sa.Integer, nullable=False, server_default="0"))
    op.add_column("fedstep_trials", sa.Column("details", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("fedstep_rounds", sa.Column("payload_bytes", sa.BigInteger, nullable=False, server_default="0"))
