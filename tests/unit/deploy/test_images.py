"""The images hold what pyproject.toml and constraints.txt say."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def packages(*extras: str) -> set[str]:
    """Names of what an image with these extras asks for."""
    command = [sys.executable, ROOT / "deploy/packages.py", *extras]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {re.split(r"[\[<>=;]", line)[0] for line in printed.splitlines()}


def test_a_clients_packages_are_no_servers() -> None:
    assert {"click", "grpcio", "torch", "scikit-learn"} <= packages("client")
    assert not packages("client") & {"optuna", "sqlalchemy", "alembic", "psycopg", "matplotlib"}
    assert {"optuna", "sqlalchemy", "psycopg"} <= packages("server", "postgres")


def test_no_list_names_fedstep_which_no_index_has() -> None:
    assert "fedstep" not in packages("client", "server", "postgres", "dashboard")


def test_an_extra_that_there_is_not_is_named() -> None:
    command = [sys.executable, ROOT / "deploy/packages.py", "visoin"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("There is no extra 'visoin' of fedstep: client, dashboard,")


def test_pytorch_is_the_one_that_fedstep_is_tested_with() -> None:
    (version,) = re.findall(r"^ARG TORCH_VERSION=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert f"torch=={version}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_classic_builder_can_build_them() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^(RUN|COPY) --(mount|link|chmod)|<<", text, re.M)
    assert not text.startswith("# syntax=")


def test_no_mapping_merges_twice() -> None:
    """Compose v2 refuses it; PyYAML, and docker-compose 1.29, take it without a word."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"^\s+<<: .*\n(\s+<<: .*)", text, re.MULTILINE)
