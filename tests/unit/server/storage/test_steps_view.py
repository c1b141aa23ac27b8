"""The local steps as a person queries them: one row a step, with plain SQL."""

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from contract.store_kit import assignment, spec
from fedstep.server.storage.base import Change, Steps
from fedstep.server.storage.sql_store import open_store

QUERY = "SELECT study, trial, round, client, step, loss, nonfinite, samples, step_ms FROM fedstep_step_view"
ROWS = [
    ("s", 1, 2, "a", 0, 0.1, None, 16, 5.25),
    ("s", 1, 2, "a", 1, None, "NaN", 16, 4.0),
    ("s", 1, 2, "a", 2, None, "-Infinity", 4, None),
    ("s", 1, 2, "b", 0, 2.0, None, 1, 1.0),
]


def fill(url: str) -> None:
    store = open_store(url)
    store.create_study(spec())
    diverged = Steps((0.1, math.nan, -math.inf), (16, 16, 4), (5.25, 4.0, math.inf))
    store.commit(
        "s",
        Change(
            assignments=[
                assignment("x", 1, 2, "a", steps=diverged),
                assignment("y", 1, 2, "b", steps=Steps((2.0,), (1,), (1.0,))),
                assignment("z", 1, 2, "c", steps=Steps()),
                assignment("w", 1, 2, "d", steps=None),
            ]
        ),
    )
    store.close()


def test_on_sqlite_with_nothing_of_ours(tmp_path: Path) -> None:
    fill(f"sqlite:///{tmp_path / 'f.db'}")
    connection = sqlite3.connect(tmp_path / "f.db")

    def ask(query: str) -> list[Any]:
        return connection.execute(query).fetchall()

    assert ask(f"{QUERY} ORDER BY client, step") == ROWS
    assert ask("SELECT avg(loss), count(nonfinite) FROM fedstep_step_view WHERE client = 'a'") == [(0.1, 2)]
    connection.close()


@pytest.mark.postgres
def test_on_postgresql(postgres_database: str) -> None:
    fill(postgres_database)
    engine = create_engine(postgres_database)
    with engine.connect() as connection:
        rows = connection.execute(text(f"{QUERY} ORDER BY client, step")).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == ROWS
