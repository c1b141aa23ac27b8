"""A real PostgreSQL, started for the tests and stopped with them: one a worker, one database a test."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import make_url

_USER, PASSWORD = "fedstep", "pass:w/rd"
_START_S = 60
MUST_RUN = "FEDSTEP_TESTS_MUST_RUN"
"""The environment variable that names what may not be skipped, such as `postgres`; `.ci/run` sets it."""


def without_password(url: str) -> str:
    """The URL, for a test that hands the password over in another way."""
    return make_url(url)._replace(password=None).render_as_string()


class PostgresServer:
    """A server that listens on a socket in its own folder, never on a port.

    Args:
        programs: The folder of the server's programs.
        folder: Its own, short: a socket's name has at most 107 bytes.
        become: A command's first words, which make it somebody else's; empty for whoever runs the tests.
    """

    def __init__(self, programs: Path, folder: Path, become: Sequence[str]) -> None:
        self.folder = folder
        self._programs = programs
        self._become = become
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, password: str = "pass%3Aw%2Frd") -> str:
        """As a user would write it; the password holds what must be escaped."""
        return f"postgresql+psycopg://{_USER}:{password}@/{database}?host={self.folder}"

    def execute(self, statement: str) -> None:
        """Runs one statement as the owner, outside of any test's database."""
        import psycopg

        with psycopg.connect(
            host=str(self.folder),
            dbname="postgres",
            user=_USER,
            password=PASSWORD,
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            connection.execute(statement.encode())

    def make(self) -> None:
        """Makes its files."""
        (self.folder / "password").write_text(PASSWORD)
        if self._become:
            subprocess.run(["chown", "-R", "nobody", str(self.folder)], check=True)
        make = [self._programs / "initdb", "-D", self.folder / "data", "-U", _USER, "-A", "scram-sha-256"]
        make += ["-E", "UTF8", "--no-sync", f"--pwfile={self.folder / 'password'}", "--locale=C.UTF-8"]
        subprocess.run([*self._become, *map(str, make)], check=True, capture_output=True, cwd=self.folder)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        serve = [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder]
        serve += ["-c", "listen_addresses=", "-c", "fsync=off"]
        with (self.folder / "log").open("ab") as log:
            command = [*self._become, *map(str, serve)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        _wait_until_up(self, self._process)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Ends it: at once, or as an administrator does, with SIGINT. What is committed stays."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


@contextmanager
def _a_server() -> Iterator[PostgresServer]:
    if importlib.util.find_spec("psycopg") is None:
        _without("psycopg is not installed")
    programs = _programs()
    if programs is None:
        _without("PostgreSQL's server programs (initdb, postgres) are not on this machine: apt install postgresql")
    become = _as_somebody_else()
    # Not under pytest's own temporary folders: those are root's alone, and too deep for a socket's name.
    folder = Path(tempfile.mkdtemp(prefix="fedstep-pg-", dir="/tmp"))
    server = PostgresServer(programs, folder, become)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One for all tests of a worker."""
    with _a_server() as server:
        yield server


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """One for a single test, which may stop and start it."""
    with _a_server() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"t{uuid.uuid4().hex}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _without(why: str) -> NoReturn:
    """Skips the test and says so, or fails it where nothing may be skipped."""
    if "postgres" in os.environ.get(MUST_RUN, ""):
        pytest.fail(why)
    pytest.skip(why)


def _programs() -> Path | None:
    """The folder of the server's programs; Debian keeps it off the PATH."""
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    if pg_config := shutil.which("pg_config"):
        found = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        folder = Path(found.stdout.strip())
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return debian[-1].parent if debian else None


def _as_somebody_else() -> list[str]:
    """PostgreSQL refuses to run as root. The server dies with the tests, however they end."""
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0:
        return [setpriv, "--pdeathsig", "QUIT"] if setpriv else []
    if setpriv is None:
        _without("PostgreSQL does not run as root, and there is no setpriv to become somebody else")
    return [setpriv, "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig", "QUIT"]


def _wait_until_up(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + _START_S
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {(server.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
