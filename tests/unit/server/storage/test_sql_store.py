"""The contract of stores, on every database that there is a server for."""

from pathlib import Path

import pytest

from contract.store_kit import OpenStore, StoreKit
from fedstep.server.storage.sql_store import SqlStore


class TestSqlite(StoreKit):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda clock: SqlStore(f"sqlite:///{tmp_path / 'fedstep.db'}", clock)


@pytest.mark.postgres
class TestPostgres(StoreKit):
    @pytest.fixture
    def open_store(self, postgres_database: str) -> OpenStore:
        return lambda clock: SqlStore(postgres_database, clock)
