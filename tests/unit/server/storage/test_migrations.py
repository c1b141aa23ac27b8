"""Migrations: what they make is what the code says, and a newer schema is left alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, create_engine, inspect

from contract.store_kit import a_round, assignment, spec
from fedstep.common.errors import StorageError
from fedstep.server.storage.base import (
    Change,
    PaceRecord,
    Spent,
)
from fedstep.server.storage.costs import ArmCost, Overhead
from fedstep.server.storage.schema import FORMAT, PREFIX, VERSION_TABLE, Base
from fedstep.server.storage.sql_store import open_store


def differences(url: str) -> list[object]:
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "include_object": lambda item, name, kind, *_: kind != "table" or name.startswith(PREFIX),
        }
        found: list[object] = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
        for table in Base.metadata.sorted_tables:  # what Alembic does not look at
            inspector = inspect(connection)
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            if key != [column.name for column in table.primary_key]:
                found.append((table.name, key))
            for column in inspector.get_columns(table.name):
                wanted = table.columns[column["name"]].type.dialect_impl(connection.dialect)
                if getattr(column["type"], "collation", None) != getattr(wanted, "collation", None):
                    found.append((table.name, column["name"], "collation"))
    engine.dispose()
    return found


def test_migrated_is_what_the_code_says(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'f.db'}"
    open_store(url).close()
    assert differences(url) == []


@pytest.mark.postgres
def test_migrated_is_what_the_code_says_on_postgresql(postgres_database: str) -> None:
    open_store(postgres_database).close()
    assert differences(postgres_database) == []


def test_a_database_is_marked_as_ours(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'f.db'}").close()
    connection = sqlite3.connect(tmp_path / "f.db")
    assert connection.execute("SELECT value FROM fedstep_meta WHERE key = 'format'").fetchone() == (FORMAT,)
    connection.close()


def without_costs(connection: sqlite3.Connection) -> None:
    """As it was before costs were accounted for."""
    for column in ("tuner_seconds", "tuner_cpu_seconds", "commit_seconds", "cpu_seconds"):
        connection.execute(f"ALTER TABLE fedstep_studies DROP COLUMN {column}")
    connection.execute("DROP VIEW fedstep_step_view")  # SQLite looks at it when a column of its tables goes
    connection.execute("ALTER TABLE fedstep_assignments DROP COLUMN model_bytes")
    connection.execute("DROP TABLE fedstep_costs")


def test_what_older_studies_have_spent_is_told_by_their_rounds(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    store = open_store(f"sqlite:///{path}")
    for name in ("s", "t", "u"):
        store.create_study(spec(name))
    for number in range(2):
        store.commit("s", Change(round=a_round(round=number, payload_bytes=5)))
    store.commit("t", Change(round=a_round(payload_bytes=7)))
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        for column in ("rounds_spent", "client_rounds_spent", "bytes_spent"):
            connection.execute(f"ALTER TABLE fedstep_studies DROP COLUMN {column}")
        without_costs(connection)
        connection.execute("DROP TABLE fedstep_paces")
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0002'")
    store = open_store(f"sqlite:///{path}")
    assert [store.study(name).spent for name in ("s", "t", "u")] == [Spent(2, 6, 10), Spent(1, 3, 7), Spent()]
    store.close()


def test_a_database_from_before_paces_were_kept_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    store = open_store(f"sqlite:///{path}")
    store.create_study(spec())
    store.commit("s", Change(round=a_round()))
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        without_costs(connection)
        connection.execute("DROP TABLE fedstep_paces")
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0003'")
    store = open_store(f"sqlite:///{path}")
    assert store.paces() == []
    store.save_paces([PaceRecord("c", {"task": "digits"})])
    assert (store.paces(), store.rounds("s")) == ([PaceRecord("c", {"task": "digits"})], [a_round()])
    store.close()


def test_what_older_trials_have_cost_is_told_by_their_rounds_and_assignments(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    store = open_store(f"sqlite:///{path}")
    store.create_study(spec())
    for number in range(2):
        given = assignment(f"a{number}", trial=1, round=number, payload_bytes=40)
        store.commit(
            "s", Change(round=a_round(trial=1, round=number, payload_bytes=100, seconds=1.5), assignments=[given])
        )
    store.commit("s", Change(round=a_round(trial=2, payload_bytes=7, seconds=0.5)))
    store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        without_costs(connection)
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0004'")
    store = open_store(f"sqlite:///{path}")
    assert store.costs("s") == [ArmCost(1, 2, 6, 200, 80, 3.0), ArmCost(2, 1, 3, 7, 0, 0.5)]
    assert (store.overhead("s"), next(store.assignments("s")).model_bytes) == (Overhead(), 0)
    store.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    open_store(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.commit()
    with pytest.raises(StorageError, match=r"schema 9999, made by a newer fedstep.*`pip install --upgrade fedstep`"):
        open_store(f"sqlite:///{path}")
    assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [("9999",)]
    connection.close()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "100% of ü"
    folder.mkdir()
    url = URL.create("sqlite", database=str(folder / "f.db")).render_as_string()
    open_store(url).close()
    assert (folder / "f.db").exists()
