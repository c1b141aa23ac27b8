"""Optuna's study in the same database: neither disturbs the other, whoever came first."""

from pathlib import Path

import optuna
import pytest
from sqlalchemy import create_engine, inspect, text

from contract.store_kit import a_round, spec
from fedstep.server.storage.base import Change
from fedstep.server.storage.sql_store import open_store


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'f.db'}"
    database: str = request.getfixturevalue("postgres_database")
    return database


def tune(url: str) -> None:
    """A trial told to Optuna, as a tuner does it."""
    study = optuna.create_study(storage=optuna.storages.RDBStorage(url), study_name="s", load_if_exists=True)
    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    study.tell(trial, 0.5)


def versions(url: str) -> dict[str, int]:
    engine = create_engine(url)
    with engine.connect() as connection:
        names = [name for name in inspect(connection).get_table_names() if name.endswith("alembic_version")]
        found = {name: len(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in names}
    engine.dispose()
    return found


def check(url: str) -> None:
    """Both are whole, and each has its own record of its schema."""
    store = open_store(url)
    assert store.rounds("s") == [a_round()]
    tune(url)  # while ours is open
    store.commit("s", Change(round=a_round(round=1)))
    store.close()
    assert versions(url) == {"alembic_version": 1, "fedstep_alembic_version": 1}


def test_ours_first(url: str) -> None:
    store = open_store(url)
    store.create_study(spec())
    store.commit("s", Change(round=a_round()))
    tune(url)
    store.close()
    check(url)


def test_optuna_first(url: str) -> None:
    tune(url)
    store = open_store(url)
    store.create_study(spec())
    store.commit("s", Change(round=a_round()))
    store.close()
    check(url)
    study = optuna.load_study(storage=optuna.storages.RDBStorage(url), study_name="s")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
