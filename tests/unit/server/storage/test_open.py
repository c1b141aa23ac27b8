"""Databases that cannot be used: one sentence with the fix, and nothing touched."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url, text

from contract.postgres import PostgresServer
from fedstep.common.clock import SystemClock
from fedstep.common.errors import StorageError
from fedstep.server.storage.base import ClientRecord
from fedstep.server.storage.sql_store import SqlStore, open_store

SECRET = "hunter2"
CLIENT = ClientRecord("c", "digits", "cpu", 1, 1, datetime(2030, 1, 1, tzinfo=UTC))


def refusal(url: str) -> str:
    """The sentence that opening it gives."""
    with pytest.raises(StorageError) as caught:
        SqlStore(url, SystemClock(), lock_timeout_s=0.2)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    assert SECRET not in sentence
    return sentence


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("content", [b"hello, this is a text file\n", b"x" * 5000], ids=["short", "long"])
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    before = files(tmp_path)
    assert refusal(f"sqlite:///{path}").startswith(f"The file {path} is not a database: give the path of")
    assert files(tmp_path) == before


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert f"{path} is not a database" in refusal(f"sqlite:///{path}")


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f.db").touch()
    open_store(f"sqlite:///{tmp_path / 'f.db'}").close()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_something_elses_is_left_as_it_is(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "firefox.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.executescript("CREATE TABLE bookmarks (a); CREATE TABLE studies (a); INSERT INTO bookmarks VALUES (1);")
    connection.close()
    before = files(tmp_path)
    assert "is something else's (it has the tables bookmarks, studies)" in refusal(f"sqlite:///{path}")
    assert files(tmp_path) == before


def test_a_table_named_as_ours_is_not_enough(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "f.db")
    connection.executescript("CREATE TABLE fedstep_meta (key, value); INSERT INTO fedstep_meta VALUES ('format', 'x');")
    connection.close()
    assert "something else's" in refusal(f"sqlite:///{tmp_path / 'f.db'}")


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "today"
    assert f"make it with `mkdir -p {folder}`" in refusal(f"sqlite:///{folder / 'f.db'}")
    assert not (tmp_path / "runs").exists()


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder" in refusal(f"sqlite:///{tmp_path}")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert f"The folder {tmp_path / 'x'} for the database" in refusal(f"sqlite:///{tmp_path / 'x' / 'f.db'}")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "may not be written to" in refusal(f"sqlite:///{tmp_path / 'f.db'}")


def test_sqlite_that_cannot_make_its_file() -> None:
    sentence = refusal("sqlite:////proc/f.db")
    assert "cannot be made" in sentence or "may not be written to" in sentence  # as root, and as anybody else


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_locked_by_another_program(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "f.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(begin)
    assert f"{path} is locked by another program" in refusal(f"sqlite:///{path}")
    other.execute("ROLLBACK")
    other.close()
    open_store(f"sqlite:///{path}").close()  # the refusal kept nothing


def test_locked_by_another_program_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    store = SqlStore(f"sqlite:///{path}", SystemClock(), lock_timeout_s=0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked by another program"):
        store.save_clients([CLIENT])
    assert store.clients() == []  # readers go on
    other.execute("ROLLBACK")
    other.close()
    store.save_clients([CLIENT])
    assert store.clients() == [CLIENT]
    store.close()


def test_held_by_another_coordinator_named_by_host_and_process(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    program = (
        "import sys; from fedstep.server.storage.sql_store import open_store;"
        "store = open_store(sys.argv[1]); print('open', flush=True); sys.stdin.read(); store.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, f"sqlite:///{path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        sentence = refusal(f"sqlite:///{path}")
        assert f"in use by another coordinator (on {os.uname().nodename}, process {holder.pid})" in sentence
        # By another name it is the same database.
        (tmp_path / "link.db").symlink_to(path)
        assert "in use by another coordinator" in refusal(f"sqlite:///{tmp_path / 'link.db'}")
        holder.communicate()
    open_store(f"sqlite:///{path}").close()


def test_the_lock_outlives_the_thread_that_took_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'f.db'}"
    with ThreadPoolExecutor(1) as pool:
        store = pool.submit(open_store, url).result(30)
    assert "in use by another coordinator" in refusal(url)
    store.close()
    open_store(url).close()


def test_in_memory_needs_no_lock() -> None:
    stores = [open_store("sqlite://"), open_store("sqlite:///:memory:")]
    for store in stores:
        assert store.studies() == []
        store.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("fedstep.db", "'fedstep.db' is no database URL: write sqlite:///fedstep.db"),
        (f"postgresql//u:{SECRET}@h/d", "No database URL: write"),
        (f"postgres://u:{SECRET}@h/d", "did you mean 'postgresql'?"),
        (f"mongodb://u:{SECRET}@h/d", "fedstep is tested with sqlite and postgresql"),
        (f"postgresql+pg8000://u:{SECRET}@h/d", "begin the URL with postgresql+psycopg://"),
        (f"mysql+pymysql://u:{SECRET}@h/d", "The Python driver 'pymysql' for mysql+pymysql://u:***@h/d is not"),
        (
            f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/d",
            "u:***@127.0.0.1:1/d cannot be reached (connection refused)",
        ),
        (f"postgresql+psycopg://u:{SECRET}@nobody.invalid/d", "cannot be reached (unknown host)"),
        (f"postgresql+psycopg://u@/d?host=/nowhere&password={SECRET}", "cannot be reached (no such socket)"),
        ("sqlite:///file:f.db?mode=ro&uri=true", "write sqlite:///PATH alone"),
    ],
)
def test_urls_that_lead_nowhere(url: str, words: str) -> None:
    assert words in refusal(url)


@pytest.mark.postgres
def test_a_wrong_password(postgres_server: PostgresServer) -> None:
    sentence = refusal(postgres_server.url("postgres", SECRET))
    assert "did not take the user name or password" in sentence
    assert "fedstep:***@" in sentence


@pytest.mark.postgres
def test_a_server_without_the_database(postgres_server: PostgresServer) -> None:
    assert "does not exist: create it with `createdb nothing_here`" in refusal(postgres_server.url("nothing_here"))


@pytest.mark.postgres
def test_a_server_database_of_something_elses(postgres_database: str) -> None:
    engine = create_engine(postgres_database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE invoices (a int)"))
    assert "something else's (it has the tables invoices)" in refusal(postgres_database)
    assert inspect(engine).get_table_names() == ["invoices"]
    engine.dispose()


@pytest.mark.postgres
def test_a_server_names_the_holder(postgres_database: str) -> None:
    store = open_store(postgres_database)
    host = os.uname().nodename[:40]
    assert f"in use by another coordinator (on {host}, process {os.getpid()})" in refusal(postgres_database)
    store.close()


@pytest.mark.postgres
def test_a_lock_whose_connection_broke_is_taken_again(postgres_server: PostgresServer, postgres_database: str) -> None:
    store = open_store(postgres_database)
    name = make_url(postgres_database).database
    postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    store.save_clients([CLIENT])
    assert store.clients() == [CLIENT]
    assert "in use by another coordinator" in refusal(postgres_database)
    store.close()
    open_store(postgres_database).close()
