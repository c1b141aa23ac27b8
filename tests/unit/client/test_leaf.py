import os
import tracemalloc
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from unit.client.leaf_files import write_json, write_leaf

from fedstep.client import leaf
from fedstep.client.leaf import LeafIndex, default_cache, open_leaf
from fedstep.common.errors import InvalidInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five users in two files, one gzipped: u0 to u4 with 3, 1, 4, 1 and 5 samples."""
    path = tmp_path / "train"
    write_leaf(path / "all_data_0.json", {"u0": 3, "u1": 1, "u2": 4})
    write_leaf(path / "all_data_1.json.gz", {"u3": 1, "u4": 5}, first=3)
    return path


def opened(folder: Path) -> LeafIndex:
    return open_leaf(folder, 784, folder.parent / "cache")


def test_every_users_samples_are_found_gzipped_or_not(folder: Path) -> None:
    index = opened(folder)
    assert index.users == ("u0", "u1", "u2", "u3", "u4")
    assert np.bincount(index.owners).tolist() == [3, 1, 4, 1, 5]
    for number in range(5):
        rows = np.flatnonzero(index.owners == number)
        features = index.features(rows)
        assert features.shape == (len(rows), 784)
        assert (features[:, 0] == number / 64).all()
        rng = np.random.default_rng(number)
        wanted = (rng.integers(0, 256, (len(rows), 784)) / 255).astype(np.float32)
        assert np.array_equal(features[:, 1:], wanted[:, 1:])
        assert np.array_equal(index.labels[rows], rng.integers(0, 10, len(rows)))


def test_files_are_read_through_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(folder)

    def not_again(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(leaf, "_users", not_again)
    assert np.array_equal(opened(folder).features(np.arange(14)), before.features(np.arange(14)))


def test_files_that_changed_are_read_again_and_the_old_index_goes(folder: Path) -> None:
    assert len(opened(folder).users) == 5
    write_leaf(folder / "all_data_2.json", {"u5": 2})
    assert opened(folder).users[-1] == "u5"
    write_leaf(folder / "all_data_2.json", {"v5": 2})  # of the same size: its time tells
    os.utime(folder / "all_data_2.json", ns=(1, 1))
    assert opened(folder).users[-1] == "v5"
    assert len([path for path in (folder.parent / "cache").iterdir() if path.is_dir()]) == 1


def test_clients_that_start_together_build_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = []
    build = leaf._build
    monkeypatch.setattr(leaf, "_build", lambda *arguments: (builds.append(1), build(*arguments)))
    found: list[LeafIndex] = []
    threads = [Thread(target=lambda: found.append(opened(folder))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert [len(index.labels) for index in found] == [14] * 6


def test_an_index_that_is_there_is_read_without_writing(folder: Path) -> None:
    opened(folder)
    [lock] = (folder.parent / "cache").glob("*.lock")
    lock.unlink()
    lock.mkdir()  # it could not be taken
    assert len(opened(folder).users) == 5


@pytest.mark.parametrize("name", ["index.json", "features.f32"])
def test_an_index_that_is_damaged_is_named(folder: Path, name: str) -> None:
    opened(folder)
    [file] = (folder.parent / "cache").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InvalidInputError, match="is damaged: remove it"):
        opened(folder)


def test_no_more_than_one_user_is_in_memory(tmp_path: Path) -> None:
    write_leaf(tmp_path / "train" / "all.json", {f"u{number}": 20 for number in range(30)})
    tracemalloc.start()
    try:
        index = opened(tmp_path / "train")
        mine = index.features(np.flatnonzero(index.owners == 7))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(mine) == 20
    assert peak < 3_000_000  # all of it is 1.9 MB as float32, and 15 MB as Python's numbers


def test_users_without_samples_are_no_clients(tmp_path: Path) -> None:
    write_leaf(tmp_path / "train" / "all.json", {"none": 0, "some": 2})
    assert opened(tmp_path / "train").users == ("some",)


def test_the_cache_is_where_the_system_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "fedstep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "fedstep"


ONE = [[0.5] * 784]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"users": ["a"], "data": {"a": {"x": ONE, "y": [1]}}}, 'no users under the key "user_data"'),
        ([1, 2], 'no users under the key "user_data"'),
        ({"user_data": [1]}, 'no users under the key "user_data"'),
        ({"user_data": {"a": {"x": ONE, "labels": [1]}}}, 'user a in .* has no list "y"'),
        ({"user_data": {"a": {"y": [1]}}}, 'user a in .* has no list "x"'),
        ({"user_data": {"a": 7}}, "is not an object with x and y"),
        ({"user_data": {"a": {"x": ONE, "y": [1, 2]}}}, r"has x \[1, 784\] and y \[2\]"),
        ({"user_data": {"a": {"x": [[0.5] * 783], "y": [1]}}}, r"x \[1, 783\].* lists of 784"),
        ({"user_data": {"a": {"x": [*ONE, [0.5]], "y": [1, 1]}}}, "different lengths"),
        ({"user_data": {"a": {"x": [["b"] * 784], "y": [1]}}}, "what is no number"),
        ({"user_data": {"a": {"x": ONE, "y": [1.5]}}}, "labels that are no whole numbers"),
        ({"user_data": {"a": {"x": ONE, "y": [-1]}}}, "labels that are no whole numbers"),
        ({"user_data": {"a": {"x": ONE, "y": ["A"]}}}, "labels that are no whole numbers"),
        ({"user_data": {"a": {"x": [[1e300] * 784], "y": [1]}}}, "not finite"),
        ({"user_data": {"a": {"x": [], "y": []}}}, "Nobody in .* has a sample"),
        ({"users": ["a"], "num_samples": [9], "user_data": {"a": {"x": ONE, "y": [1]}}}, "a has 9 samples, and 1 are"),
        (
            {"users": ["a", "b"], "num_samples": [1, 2], "user_data": {"a": {"x": ONE, "y": [1]}}},
            "b has 2 samples, and 0 are",
        ),
    ],
)
def test_json_that_is_not_leafs_is_named(tmp_path: Path, content: object, sentence: str) -> None:
    write_json(tmp_path / "train" / "all.json", content)
    with pytest.raises(InvalidInputError, match=sentence):
        opened(tmp_path / "train")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b'{"user_data": {"a": {"x": [[0.5', "it ends too early"),
        ("a.json", b"", "it ends too early"),
        (
            "a.json",
            b'{"user_data": {"a": {"x": [[0.5]], "y": [9223372036854775808]}}}',
            "a whole number of more than 64",
        ),
        ("a.json", b"nonsense", "it is no whole JSON, which has no NaN"),
        ("a.json", b"\xff\xfe{}", "it is no whole JSON, which has no NaN"),
        ("a.json.gz", b"nonsense", "not gzipped, or damaged"),
        ("a.json.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x00", "it ends too early|damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"{name} cannot be read \((.*{sentence}.*)\)"):
        opened(tmp_path / "train")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]  # nothing half is left


def test_a_user_in_two_files_is_refused(folder: Path) -> None:
    write_leaf(folder / "again.json", {"u3": 1})
    with pytest.raises(InvalidInputError, match=r"The user u3 is in .*again\.json and in .*all_data_1"):
        opened(folder)


def test_folders_that_cannot_be_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no folder .*none"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"empty has no \.json"):
        opened(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="--option cache=FOLDER"):
        open_leaf(folder, 784, tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content"),
    [("labels.i64", b"12345678"), ("features.f32", b""), ("index.json", b"[]"), ("index.json", b"{")],
)
def test_an_index_that_is_damaged_is_told(folder: Path, name: str, content: bytes) -> None:
    opened(folder)
    (kept,) = (path for path in (folder.parent / "cache").iterdir() if path.is_dir())
    (kept / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match="is damaged: remove it, and it is made again"):
        opened(folder)


@pytest.mark.parametrize("name", ["labels.i64", "features.f32", "index.json"])
def test_an_index_that_lacks_a_file_is_told(folder: Path, name: str) -> None:
    opened(folder)
    (kept,) = (path for path in (folder.parent / "cache").iterdir() if path.is_dir())
    (kept / name).unlink()
    with pytest.raises(InvalidInputError, match="is damaged: remove it, and it is made again"):
        opened(folder)
