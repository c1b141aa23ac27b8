import getpass
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedstep.client.naming import default_name

HOST = socket.gethostname()


def test_clients_on_one_machine_have_names_of_their_own(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        assert default_name(None, first, tmp_path) == HOST
        assert default_name(None, second, tmp_path) == f"{HOST}-2"


def test_a_name_is_free_again_when_its_client_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with ExitStack() as held:
            assert default_name(None, held, tmp_path) == HOST


def test_a_partition_names_its_client(tmp_path: Path) -> None:
    with ExitStack() as held:
        assert default_name((2, 8), held, tmp_path) == f"{HOST}-3"
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_to_write_to_it_is_the_host(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with ExitStack() as held:
        assert default_name(None, held, blocked) == HOST


def test_without_any_folder_to_write_to_it_is_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with ExitStack() as held:
        assert default_name(None, held) == HOST


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username set"), ImportError("pwd")])
def test_a_user_without_a_name_has_clients_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    with ExitStack() as held:
        assert default_name(None, held, tmp_path) == HOST
        assert default_name(None, held, tmp_path) == f"{HOST}-2"
