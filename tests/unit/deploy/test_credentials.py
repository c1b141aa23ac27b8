"""What compose's services and Kubernetes' pods know each other by: made once, or anew where it would end."""

import os
import subprocess
import sys
from pathlib import Path

from fedstep.common.identity import Identity, Role
from fedstep.common.tls import read_authorities, read_pair

SCRIPT = Path(__file__).parents[3] / "deploy/credentials.py"


def make(folder: Path, *names: str) -> str:
    variables = {"FEDSTEP_SECRETS": str(folder), "FEDSTEP_ENROLLED": str(folder / "enrolled"), "FEDSTEP_SHARES": "2"}
    ran = subprocess.run(
        [sys.executable, SCRIPT, *names], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_each_folder_has_what_its_service_needs_and_no_more(tmp_path: Path) -> None:
    make(tmp_path)
    found = {folder.name: {path.name for path in folder.iterdir()} for folder in tmp_path.iterdir()}
    assert found == {
        "authority": {"ca.crt", "ca.key"},
        "coordinator": {
            *("ca.crt", "coordinator.crt", "coordinator.key", "health-check.crt", "health-check.key", "pgpass"),
        },
        "client": {"ca.crt", "client-1.crt", "client-1.key", "client-2.crt", "client-2.key"},
        "operator": {"ca.crt", "operator.crt", "operator.key"},
        "database": {"fedstep", "dashboard"},
        "dashboard": {"pgpass"},
    }
    pair = read_pair(tmp_path / "client/client-2.crt", tmp_path / "client/client-2.key")
    assert pair.identity == Identity(Role.CLIENT, "client-2")
    read_authorities(tmp_path / "client/ca.crt")
    for path in [*tmp_path.rglob("*.key"), *tmp_path.rglob("pgpass")]:
        assert path.stat().st_mode & 0o777 == 0o600, path  # libpq passes over a file that others may read
    password = (tmp_path / "database/dashboard").read_text()
    assert (tmp_path / "dashboard/pgpass").read_text() == f"*:*:*:dashboard:{password}\n"
    assert password != (tmp_path / "database/fedstep").read_text()


def test_a_folder_that_it_makes_is_its_owners_alone(tmp_path: Path) -> None:
    make(tmp_path / "secrets")
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_second_time_keeps_ca_and_passwords_and_renews_certificates(tmp_path: Path) -> None:
    kept = ("authority/ca.key", "authority/ca.crt", "database/fedstep", "coordinator/pgpass")
    make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make(tmp_path)
    for path, content in before.items():
        same = str(path.relative_to(tmp_path)) in kept or path.name in ("ca.crt", "pgpass", "dashboard")
        assert (path.read_bytes() == content) is same, path


def test_a_client_elsewhere_gets_a_folder_to_carry_there(tmp_path: Path) -> None:
    make(tmp_path)
    assert make(tmp_path, "hospital-3") == "In the folder of the results, enrolled: hospital-3\n"
    folder = tmp_path / "enrolled/hospital-3"
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "hospital-3.crt", "hospital-3.key"}
