"""The first tables, and the view that shows one row a local step.

A revision is never edited and imports nothing of fedstep's: it must do tomorrow what it did today.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# One row a step. A loss that is no finite number is NULL, and named in `nonfinite`, so that avg() and ORDER BY work.
_SQLITE_VIEW = """
CREATE VIEW fedstep_step_view AS
SELECT study.name AS study, a.trial, a.round, a.attempt, a.client, s.assignment_id, loss.key AS step,
  CASE WHEN loss.type IN ('real', 'integer') THEN loss.value END AS loss,
  CASE loss.type WHEN 'text' THEN loss.value END AS nonfinite,
  json_extract(s.samples, '$[' || loss.key || ']') AS samples,
  CASE WHEN json_type(s.step_ms, '$[' || loss.key || ']') IN ('real', 'integer')
    THEN json_extract(s.step_ms, '$[' || loss.key || ']') END AS step_ms
FROM fedstep_steps s
JOIN fedstep_assignments a ON a.assignment_id = s.assignment_id
JOIN fedstep_studies study ON study.id = a.study_id
JOIN json_each(s.loss) loss
"""

_POSTGRESQL_VIEW = """
CREATE VIEW fedstep_step_view AS
SELECT study.name AS study, a.trial, a.round, a.attempt, a.client, s.assignment_id, step.position - 1 AS step,
  CASE WHEN step.loss NOT IN ('NaN', 'Infinity', '-Infinity') THEN step.loss::double precision END AS loss,
  CASE WHEN step.loss IN ('NaN', 'Infinity', '-Infinity') THEN step.loss END AS nonfinite,
  step.samples::bigint AS samples,
  CASE WHEN step.step_ms NOT IN ('NaN', 'Infinity', '-Infinity') THEN step.step_ms::double precision END AS step_ms
FROM fedstep_steps s
JOIN fedstep_assignments a ON a.assignment_id = s.assignment_id
JOIN fedstep_studies study ON study.id = a.study_id
CROSS JOIN LATERAL ROWS FROM (
  json_array_elements_text(s.loss), json_array_elements_text(s.samples), json_array_elements_text(s.step_ms)
) WITH ORDINALITY AS step(loss, samples, step_ms, position)
"""


def upgrade() -> None:
    """Creates everything."""
    meta = op.create_table(
        "fedstep_meta",
        sa.Column("key", _name(64), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_fedstep_meta"),
    )
    op.bulk_insert(meta, [{"key": "format", "value": "fedstep study database"}])
    _create_studies_and_trials()
    _create_rounds_and_assignments()
    _create_events_and_clients()
    match op.get_context().dialect.name:
        case "sqlite":
            op.execute(_SQLITE_VIEW)
        case "postgresql":
            op.execute(_POSTGRESQL_VIEW)


def _create_studies_and_trials() -> None:
    op.create_table(
        "fedstep_studies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", _name(64), nullable=False),
        sa.Column("spec", _text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("message", _text(), nullable=False),
        sa.Column("tuner_state", sa.JSON, nullable=False),
        sa.Column("seconds_spent", sa.Double, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("updated_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fedstep_studies"),
        sa.UniqueConstraint("name", name="uq_fedstep_studies_name"),
    )
    op.create_table(
        "fedstep_trials",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("value_by_round", sa.JSON, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("model_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("optimizer_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("message", _text(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "number", name="pk_fedstep_trials"),
        _study_key("fedstep_trials"),
    )


def _create_rounds_and_assignments() -> None:
    op.create_table(
        "fedstep_rounds",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("trial", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("round", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("model_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("train_loss", sa.Double),
        sa.Column("nonfinite", sa.JSON, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("cohort", sa.JSON, nullable=False),
        sa.Column("updates", sa.Integer, nullable=False),
        sa.Column("evaluators", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("ended_at", _time(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "trial", "round", name="pk_fedstep_rounds"),
        _study_key("fedstep_rounds"),
    )
    op.create_table(
        "fedstep_assignments",
        sa.Column("assignment_id", _name(255), nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("trial", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("client", _name(255), nullable=False),
        sa.Column("work", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("message", _text(), nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("elapsed_s", sa.Double, nullable=False),
        sa.Column("payload_bytes", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("assignment_id", name="pk_fedstep_assignments"),
        _study_key("fedstep_assignments"),
    )
    op.create_index(
        "ix_fedstep_assignments_study_id_trial_round_client",
        "fedstep_assignments",
        ["study_id", "trial", "round", "client"],
    )
    op.create_table(
        "fedstep_steps",
        sa.Column("assignment_id", _name(255), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("loss", sa.JSON, nullable=False),
        sa.Column("samples", sa.JSON, nullable=False),
        sa.Column("step_ms", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("assignment_id", name="pk_fedstep_steps"),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["fedstep_assignments.assignment_id"], name="fk_fedstep_steps_assignment_id"
        ),
    )


def _create_events_and_clients() -> None:
    op.create_table(
        "fedstep_events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("text", _text(), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_fedstep_events"),
        _study_key("fedstep_events"),
    )
    op.create_index("ix_fedstep_events_study_id_number", "fedstep_events", ["study_id", "number"])
    op.create_table(
        "fedstep_clients",
        sa.Column("name", _name(255), nullable=False),
        sa.Column("task", _text(), nullable=False),
        sa.Column("device", _text(), nullable=False),
        sa.Column("train_samples", sa.BigInteger, nullable=False),
        sa.Column("validation_samples", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", _time(), nullable=False),
        sa.Column("updates_accepted", sa.BigInteger, nullable=False),
        sa.Column("faults", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_fedstep_clients"),
    )


def _study_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["study_id"], ["fedstep_studies.id"], name=f"fk_{table}_study_id")


def _name(length: int) -> Any:
    binary = sa.String(length, collation="utf8mb4_bin")
    return (
        sa.String(length)
        .with_variant(sa.String(length, collation="C"), "postgresql")
        .with_variant(binary, "mysql", "mariadb")
    )


def _text() -> Any:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def _time() -> Any:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
