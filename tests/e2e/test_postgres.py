"""A coordinator on PostgreSQL, as it is started by hand."""

import signal
from pathlib import Path

import pytest
from e2e.processes import Programs
from sqlalchemy import make_url

from contract.postgres import PASSWORD, without_password

pytestmark = pytest.mark.postgres


def test_what_a_coordinator_prints_holds_no_password(
    programs: Programs, tmp_path: Path, postgres_database: str
) -> None:
    coordinator = programs.start(
        "coordinator", "--port", "0", "--data-dir", tmp_path / "d", "-v", "--database", postgres_database
    )
    coordinator.until(lambda p: p.says("database postgresql"), "it listens")
    coordinator.send(signal.SIGTERM)
    assert coordinator.wait() == 0
    said = coordinator.out + coordinator.err
    assert "fedstep:***@" in said
    assert PASSWORD not in said
    assert make_url(postgres_database).render_as_string(hide_password=False) not in said


def test_the_url_from_the_environment_and_the_password_from_a_file(
    programs: Programs, tmp_path: Path, postgres_database: str
) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    bare = without_password(postgres_database)
    variables = {"FEDSTEP_DATABASE_URL": bare, "FEDSTEP_DATABASE_PASSWORD_FILE": str(tmp_path / "password")}
    coordinator = programs.start("coordinator", "--port", "0", "--data-dir", tmp_path / "d", variables=variables)
    coordinator.until(lambda p: p.says("database postgresql"), "it listens")
    assert PASSWORD not in coordinator.out
