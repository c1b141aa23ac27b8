"""The password of a database, from a file."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from contract.postgres import PASSWORD, without_password
from fedstep.common.errors import StorageError
from fedstep.server.storage.password import with_password
from fedstep.server.storage.sql_store import open_store

SERVER = "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_it_is_the_files_content_without_the_lines_end(tmp_path: Path, end: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f" p:a/s@s %w?rd{end}".encode())
    assert make_url(with_password(SERVER, file)).password == " p:a/s@s %w?rd"


@pytest.mark.parametrize(
    ("url", "content", "words"),
    [
        ("", b"x", "without --database"),
        ("sqlite:///f.db", b"x", "SQLite takes no password"),
        ("postgresql+psycopg://u:hunter2@h/d", b"x", "leave one out"),
        (SERVER, None, "no such file"),
        (SERVER, b"\xff\xfe", "no plain text"),
        (SERVER, b"\n", "is empty"),
        ("nonsense", b"x", "write sqlite:///fedstep.db"),
    ],
)
def test_what_cannot_be(tmp_path: Path, url: str, content: bytes | None, words: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StorageError, match=words) as caught:
        with_password(url, file)
    assert "hunter2" not in caught.value.message


@pytest.mark.postgres
def test_postgresql_takes_it(tmp_path: Path, postgres_database: str) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    bare = without_password(postgres_database)
    with pytest.raises(StorageError, match="--database-password-file"):
        open_store(bare)
    store = open_store(with_password(bare, file))
    assert store.studies() == []
    store.close()
