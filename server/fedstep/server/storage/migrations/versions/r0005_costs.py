"""What each trial has cost, what the coordinator has spent on a study, and the bytes that each assignment was sent.

A revision is never edited and imports nothing of fedstep's: it must do tomorrow what it did today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Cost = tuple[int, int, int, int, float]


def upgrade() -> None:
    """Adds them; a trial that is there already has cost what its committed rounds did."""
    for name in ("tuner_seconds", "tuner_cpu_seconds", "commit_seconds", "cpu_seconds"):
        op.add_column("fedstep_studies", sa.Column(name, sa.Double, nullable=False, server_default="0"))
    op.add_column("fedstep_assignments", sa.Column("model_bytes", sa.BigInteger, nullable=False, server_default="0"))
    costs = op.create_table(
        "fedstep_costs",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("trial", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("rounds", sa.BigInteger, nullable=False),
        sa.Column("client_rounds", sa.BigInteger, nullable=False),
        sa.Column("payload_bytes", sa.BigInteger, nullable=False),
        sa.Column("update_bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["fedstep_studies.id"], name="fk_fedstep_costs_study_id_fedstep_studies"),
        sa.PrimaryKeyConstraint("study_id", "trial", name="pk_fedstep_costs"),
    )
    names = ("study_id", "trial", "rounds", "client_rounds", "payload_bytes", "update_bytes", "seconds")
    rows = [dict(zip(names, (*key, *cost), strict=True)) for key, cost in _before().items()]
    if rows:
        op.bulk_insert(costs, rows)


def _before() -> dict[tuple[int, int], Cost]:
    """By study and trial, what its committed rounds have cost."""
    connection = op.get_bind()
    plain = ("study_id", "trial", "payload_bytes", "seconds")
    rounds = sa.table("fedstep_rounds", *map(sa.column, plain), sa.column("cohort", sa.JSON))
    found: dict[tuple[int, int], Cost] = {}
    for study_id, trial, payload_bytes, seconds, cohort in connection.execute(sa.select(*rounds.c)).all():
        count, clients, payload, updates, time = found.get((study_id, trial), (0, 0, 0, 0, 0.0))
        counted = (count + 1, clients + len(cohort), payload + payload_bytes, updates, time + seconds)
        found[study_id, trial] = counted
    given = sa.table("fedstep_assignments", *map(sa.column, ("study_id", "trial", "payload_bytes")))
    sums = sa.select(given.c.study_id, given.c.trial, sa.func.sum(given.c.payload_bytes))
    for study_id, trial, updates in connection.execute(sums.group_by(given.c.study_id, given.c.trial)).all():
        if (study_id, trial) in found:
            count, clients, payload, _, time = found[study_id, trial]
            found[study_id, trial] = (count, clients, payload, min(int(updates), payload), time)
    return found
