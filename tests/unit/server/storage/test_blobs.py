"""Model files: whole or absent, verified, and never lost between writing and commit."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fedstep.common.errors import DataLossError, InvalidInputError, NotFoundError, StorageError, UnavailableError
from fedstep.common.tensors import Manifest, as_bytes, pack, sha256
from fedstep.server.storage.blobs import BlobStore

STATE = {
    "conv.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "flag": torch.tensor([True, False, True]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7, dtype=torch.int64),
    "empty": torch.empty(0, 4),
}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "models")


def put(blobs: BlobStore, content: bytes) -> bytes:
    digest = sha256(content)
    blobs.put(content, digest)
    return digest


def files(blobs_folder: Path) -> list[str]:
    return sorted(path.name for path in blobs_folder.rglob("*") if path.is_file())


def test_a_payload_comes_back(blobs: BlobStore, tmp_path: Path) -> None:
    for content in (b"", b"x", os.urandom(3 << 20)):
        digest = sha256(content)
        path = blobs.put(memoryview(content), digest)
        assert path == blobs.path(digest) == tmp_path / "models" / digest.hex()[:2] / f"{digest.hex()}.bin"
        assert path.read_bytes() == content
        payload = blobs.get(digest)
        assert payload.dtype is torch.uint8
        assert bytes(as_bytes(payload)) == content
    assert bytes(as_bytes(BlobStore(tmp_path / "models").get(digest))) == content


def test_what_is_there_is_not_written_again(blobs: BlobStore) -> None:
    digest = put(blobs, b"content")
    before = blobs.path(digest).stat()
    put(blobs, b"content")
    after = blobs.path(digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_cut_short_is_written_again(blobs: BlobStore) -> None:
    digest = put(blobs, b"content")
    blobs.path(digest).write_bytes(b"cont")
    put(blobs, b"content")
    assert bytes(as_bytes(blobs.get(digest))) == b"content"


@pytest.mark.parametrize("damaged", [b"Content", b"conten", b"content+", b""])
def test_a_damaged_file_is_refused_by_name(blobs: BlobStore, damaged: bytes) -> None:
    digest = put(blobs, b"content")
    blobs.path(digest).write_bytes(damaged)
    with pytest.raises(DataLossError, match=f"{blobs.path(digest)} is damaged"):
        blobs.get(digest)


def test_what_is_not_there_is_not_found(blobs: BlobStore) -> None:
    digest = sha256(b"nothing")
    with pytest.raises(NotFoundError, match=digest.hex()):
        blobs.get(digest)
    put(blobs, b"nothing")
    with pytest.raises(NotFoundError, match=f"{digest.hex()}.json"):
        blobs.manifest(digest)


def test_a_manifest_is_kept_beside_its_payload(blobs: BlobStore) -> None:
    manifest = Manifest.of(STATE)
    payload = pack(STATE, manifest)
    digest = sha256(payload)
    blobs.put(as_bytes(payload), digest)
    blobs.put(as_bytes(payload), digest, manifest)  # learnt later
    assert blobs.manifest(digest) == manifest
    blobs.path(digest).with_suffix(".json").write_text("{")
    with pytest.raises(DataLossError, match=r"\.json cannot be read"):
        blobs.manifest(digest)


def test_a_manifest_of_another_payload_is_refused(blobs: BlobStore) -> None:
    with pytest.raises(InvalidInputError, match="3 bytes with a manifest of"):
        blobs.put(b"abc", sha256(b"abc"), Manifest.of(STATE))


def test_payloads_of_the_same_bytes_never_share_a_manifest(blobs: BlobStore) -> None:
    ours, theirs = ({name: torch.zeros(6)} for name in ("fc", "head"))
    payload = pack(ours, Manifest.of(ours))
    digest = sha256(payload)
    blobs.put(as_bytes(payload), digest, Manifest.of(ours))
    with pytest.raises(UnavailableError, match=r"different layouts \(fc is missing\)"):
        blobs.put(as_bytes(payload), digest, Manifest.of(theirs))
    assert blobs.manifest(digest) == Manifest.of(ours)
    blobs.remove({digest})
    blobs.put(as_bytes(payload), digest, Manifest.of(theirs))
    assert blobs.manifest(digest) == Manifest.of(theirs)


def test_a_model_is_exported_as_safetensors(blobs: BlobStore, tmp_path: Path) -> None:
    manifest = Manifest.of(STATE)
    payload = pack(STATE, manifest)
    blobs.put(as_bytes(payload), sha256(payload), manifest)
    for _ in range(2):  # the second one replaces the first
        blobs.export_safetensors(sha256(payload), tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    assert set(loaded) == set(STATE)
    for name, tensor in STATE.items():
        assert loaded[name].dtype is tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert files(tmp_path)[-1] == "model.safetensors"
    with pytest.raises(StorageError, match="nowhere/model"):
        blobs.export_safetensors(sha256(payload), tmp_path / "nowhere" / "model.safetensors")


def test_retain_deletes_all_others_with_their_manifests(blobs: BlobStore, tmp_path: Path) -> None:
    manifest = Manifest.of(STATE)
    payload = pack(STATE, manifest)
    blobs.put(as_bytes(payload), sha256(payload), manifest)
    kept, gone = put(blobs, b"kept"), put(blobs, b"gone")
    (tmp_path / "models" / "README.bin").touch()
    (blobs.path(kept).parent / "notes.bin").touch()
    assert blobs.retain({kept, sha256(b"never there")}) == 2
    assert not blobs.path(gone).exists()
    assert files(tmp_path / "models") == sorted(["README.bin", f"{kept.hex()}.bin", "notes.bin"])


def test_remove_deletes_these_and_nothing_that_is_held(blobs: BlobStore, tmp_path: Path) -> None:
    kept, gone = put(blobs, b"kept"), put(blobs, b"gone")
    with blobs.hold():
        held = put(blobs, b"held")
        blobs.remove({gone, held, sha256(b"never there")})
    assert files(tmp_path / "models") == sorted([f"{kept.hex()}.bin", f"{held.hex()}.bin"])


def test_a_deleted_payload_leaves_its_file_to_the_next_of_its_size(blobs: BlobStore, tmp_path: Path) -> None:
    contents = [os.urandom(1 << 20) for _ in range(3)]
    first = put(blobs, contents[0])
    inode = blobs.path(first).stat().st_ino
    blobs.remove({first})
    assert not blobs.path(first).exists()
    second = put(blobs, contents[1])
    assert blobs.path(second).stat().st_ino == inode
    third = put(blobs, contents[2] + b"longer")
    assert [bytes(as_bytes(blobs.get(digest))) for digest in (second, third)] == [contents[1], contents[2] + b"longer"]
    assert len(files(tmp_path / "models")) == 2


def test_spare_files_of_another_size_and_of_an_earlier_life_go(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.remove({put(blobs, os.urandom(1 << 20))})
    assert len(files(tmp_path / "models")) == 1
    put(blobs, os.urandom(2 << 20))
    assert len(files(tmp_path / "models")) == 1
    blobs.remove({put(blobs, os.urandom(1 << 20))})
    BlobStore(tmp_path / "models")
    assert len(files(tmp_path / "models")) == 1


def test_a_payload_that_comes_and_goes_again_leaves_each_file_to_one_other(blobs: BlobStore) -> None:
    one, two, three, four = (os.urandom(1 << 20) for _ in range(4))
    blobs.remove({put(blobs, one), put(blobs, two)})
    put(blobs, one)  # written over one of the two
    blobs.remove({sha256(one)})
    digests = [put(blobs, three), put(blobs, four)]
    assert len({blobs.path(digest).stat().st_ino for digest in digests}) == 2
    assert [bytes(as_bytes(blobs.get(digest))) for digest in digests] == [three, four]


def test_a_folder_belongs_to_one_database(tmp_path: Path) -> None:
    BlobStore(tmp_path / "models", "this")
    BlobStore(tmp_path / "models", "this")
    with pytest.raises(StorageError, match="another database's: give this coordinator a --data-dir of its own"):
        BlobStore(tmp_path / "models", "that")


def test_a_manifest_that_a_kill_left_alone_goes(blobs: BlobStore, tmp_path: Path) -> None:
    manifest = Manifest.of(STATE)
    payload = pack(STATE, manifest)
    blobs.put(as_bytes(payload), sha256(payload), manifest)
    blobs.path(sha256(payload)).unlink()
    blobs.retain({sha256(payload)})
    assert files(tmp_path / "models") == []


def test_what_is_put_under_a_hold_outlives_retain(blobs: BlobStore) -> None:
    old = put(blobs, b"old")
    with blobs.hold():
        new, again = put(blobs, b"new"), put(blobs, b"again")
        with blobs.hold():
            assert blobs.retain(set()) == 1
        assert put(blobs, b"again") == again  # it was there already
        assert blobs.retain(set()) == 0
        assert blobs.path(new).exists()
        assert not blobs.path(old).exists()
    assert blobs.retain({again}) == 1
    assert blobs.path(again).exists()


def test_retain_in_another_thread_takes_nothing_that_is_held(blobs: BlobStore) -> None:
    done = threading.Event()

    def sweep() -> None:
        while not done.is_set():
            blobs.retain(set())

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for number in range(300):
            with blobs.hold():
                digest = put(blobs, b"content %d" % (number % 3))  # often one that is just being deleted
                assert blobs.path(digest).exists()
    finally:
        done.set()
        thread.join(30)


def test_many_threads_put_the_same(blobs: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    threads = [threading.Thread(target=put, args=(blobs, content)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert files(tmp_path / "models") == [f"{sha256(content).hex()}.bin"]
    assert bytes(as_bytes(blobs.get(sha256(content)))) == content


def test_a_writer_killed_half_way_leaves_nothing_that_lasts(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from fedstep.common.tensors import sha256
from fedstep.server.storage.blobs import BlobStore
os.fsync = lambda number: os.kill(os.getpid(), 9)
BlobStore(Path(sys.argv[1])).put(b"content", sha256(b"content"))
"""
    folder = tmp_path / "models"
    (folder / sha256(b"content").hex()[:2]).mkdir(parents=True)
    assert subprocess.run([sys.executable, "-c", program, str(folder)], check=False).returncode == -9
    assert len(files(folder)) == 1
    blobs = BlobStore(folder)
    assert files(folder) == []
    with pytest.raises(NotFoundError):
        blobs.get(sha256(b"content"))


def test_a_write_that_fails_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    # The system refuses every file over 1,000 bytes, which it only finds out half-way.
    program = """
import resource, sys
from pathlib import Path
from fedstep.common.tensors import sha256
from fedstep.server.storage.blobs import BlobStore
blobs = BlobStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    blobs.put(b"x" * 1500, sha256(b"x" * 1500))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StorageError ")
    assert "(File too large): check its rights and the room on its disk" in done.stdout
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"Not a directory|File exists"):
        BlobStore(tmp_path / "file" / "models")


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=200), max_size=6), st.sets(st.integers(0, 5)))
def test_after_retain_exactly_the_kept_are_there(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], chosen: set[int]
) -> None:
    blobs = BlobStore(tmp_path_factory.mktemp("models"))
    digests = [put(blobs, content) for content in contents]
    keep = {digest for number, digest in enumerate(digests) if number in chosen}
    assert blobs.retain(keep) == len(set(digests) - keep)
    assert {digest for digest in digests if blobs.path(digest).exists()} == keep


def test_retain_finds_what_an_earlier_coordinator_left_and_looks_through_the_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(BlobStore(tmp_path / "models"), b"old")
    blobs = BlobStore(tmp_path / "models")
    new = put(blobs, b"new")
    assert blobs.retain({new}) == 1
    assert not blobs.path(old).exists()
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("the folder was looked through again"))
    assert blobs.retain(set()) == 1
    assert not blobs.path(new).exists()
