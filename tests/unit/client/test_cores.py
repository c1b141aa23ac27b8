"""A client's share of the machine's cores."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import torch

from fedstep.client import claims, cores, naming
from fedstep.client.cores import Neighbours, available_cores, fair_share, take_cores


@pytest.fixture
def threads() -> Iterator[int]:
    """As many as torch uses in this process, and does again after the test."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@contextmanager
def neighbour(folder: Path) -> Iterator[Neighbours]:
    with ExitStack() as held:
        yield Neighbours(held, folder)


@pytest.mark.parametrize(
    ("there", "clients", "wanted"), [(8, 1, 8), (8, 3, 2), (8, 9, 1), (1.5, 1, 1), (0.5, 1, 1), (2.9, 1, 2), (4, 0, 4)]
)
def test_a_share_is_whole_cores_and_at_least_one(there: float, clients: int, wanted: int) -> None:
    assert fair_share(there, clients) == wanted


def test_clients_count_each_other_while_they_run(tmp_path: Path) -> None:
    with neighbour(tmp_path) as first:
        assert first.count() == 1
        with neighbour(tmp_path) as second, neighbour(tmp_path) as third:
            assert [one.count() for one in (first, second, third)] == [3, 3, 3]
        assert first.count() == 1  # the files they had are still there, and nobody's
        with neighbour(tmp_path) as other:
            assert (first.count(), other.count()) == (2, 2)
    assert len(list(tmp_path.glob("*.lock"))) <= 3  # numbers are used again


def test_a_client_that_was_killed_is_not_counted(tmp_path: Path) -> None:
    code = (
        "import sys; from contextlib import ExitStack; from pathlib import Path\n"
        "from fedstep.client.cores import Neighbours\n"
        "held = ExitStack(); Neighbours(held, Path(sys.argv[1])); print('there', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with closing(process.stdin), closing(process.stdout), neighbour(tmp_path) as here:
        assert process.stdout.readline() == b"there\n"
        assert here.count() == 2
        process.kill()
        process.wait()
        assert here.count() == 1


def test_a_folder_that_cannot_be_written_leaves_a_client_alone(tmp_path: Path) -> None:
    with neighbour(tmp_path / "file" / "none") as alone:
        assert alone.count() == 1


def test_a_container_may_have_neither_names_nor_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(naming.getpass, "getuser", nobody)
    with neighbour(tmp_path) as first, neighbour(tmp_path):
        assert first.count() == 2
    monkeypatch.setattr(claims.tempfile, "gettempdir", nowhere)
    with ExitStack() as held:
        assert Neighbours(held).count() == 1


@pytest.mark.parametrize(
    ("own", "limits", "wanted"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "70000 100000", "cpu.max": "90000 100000"}, 0.7),
        ("0::/../..\n", {"cpu.max": "50000 100000"}, 0.5),
        ("3:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
        ("3:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (None, {}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
    ],
)
def test_a_containers_limit_counts(
    tmp_path: Path, own: str | None, limits: dict[str, str], wanted: float | None
) -> None:
    proc, groups = tmp_path / "cgroup", tmp_path / "groups"
    if own is not None:
        proc.write_text(own)
    for name, text in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text + "\n")
    everything = available_cores(tmp_path / "none", tmp_path / "none")
    assert everything >= 1
    assert available_cores(proc, groups) == (wanted or everything)


def test_threads_are_as_many_as_was_said(threads: int) -> None:
    with ExitStack() as held:
        take_cores(threads + 1, held, {})()
        assert torch.get_num_threads() == threads + 1
        take_cores(None, held, {"OMP_NUM_THREADS": "1"})()
        assert torch.get_num_threads() == threads + 1  # whoever sets it wants it


def test_threads_follow_those_who_come_and_go(threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cores, "available_cores", lambda: 6.0)
    with ExitStack() as held:
        take = take_cores(None, held, {})
        take()
        assert torch.get_num_threads() == 6
        with neighbour(tmp_path), neighbour(tmp_path):
            take()
            assert torch.get_num_threads() == 2
        take()
        assert torch.get_num_threads() == 6
