import pytest
import torch

from fedstep.common.errors import InvalidInputError, NotFoundError, UnavailableError
from fedstep.common.tensors import Manifest, as_bytes, pack, sha256
from fedstep.server.storage.memory_blobs import MemoryBlobs

STATE = {"w": torch.arange(6.0).view(2, 3)}
MANIFEST = Manifest.of(STATE)


def put(blobs: MemoryBlobs, number: float) -> bytes:
    payload = pack({"w": STATE["w"] + number}, MANIFEST)
    blobs.put(as_bytes(payload), sha256(payload), MANIFEST)
    return sha256(payload)


def test_what_was_put_is_found_by_its_digest() -> None:
    blobs = MemoryBlobs()
    payload = pack(STATE, MANIFEST)
    digest = sha256(payload)
    blobs.put(as_bytes(payload), digest, MANIFEST)
    wanted = payload.clone()
    payload.zero_()  # its owner may go on with it
    assert torch.equal(blobs.get(digest), wanted)
    assert blobs.manifest(digest) == MANIFEST


def test_what_is_not_there_is_said() -> None:
    blobs = MemoryBlobs()
    with pytest.raises(NotFoundError, match="3f3f3f"):
        blobs.get(b"?" * 32)
    with pytest.raises(NotFoundError):
        blobs.manifest(b"?" * 32)


def test_a_manifest_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="3 bytes"):
        MemoryBlobs().put(b"abc", b"?" * 32, MANIFEST)


def test_all_but_what_is_retained_goes() -> None:
    blobs = MemoryBlobs()
    kept, gone = put(blobs, 1), put(blobs, 2)
    assert blobs.retain({kept}) == 1
    assert blobs.get(kept).numel() == 24
    with pytest.raises(NotFoundError):
        blobs.get(gone)


def test_what_is_put_under_a_hold_stays_until_the_last_overlapping_one_ends() -> None:
    blobs = MemoryBlobs()
    before = put(blobs, 0)
    with blobs.hold():
        during = put(blobs, 1)
        with blobs.hold():
            assert blobs.held() == {during}
        blobs.remove({before, during})
        assert blobs.retain(set()) == 0
        blobs.get(during)
    assert blobs.held() == set()
    blobs.remove({during})
    for digest in (before, during):
        with pytest.raises(NotFoundError):
            blobs.get(digest)


def test_payloads_of_the_same_bytes_never_share_a_manifest() -> None:
    ours, theirs = ({name: torch.zeros(6)} for name in ("fc", "head"))
    blobs, payload = MemoryBlobs(), pack(ours, Manifest.of(ours))
    digest = sha256(payload)
    blobs.put(as_bytes(payload), digest, Manifest.of(ours))
    with pytest.raises(UnavailableError, match=r"different layouts \(fc is missing\)"):
        blobs.put(as_bytes(payload), digest, Manifest.of(theirs))
    assert blobs.manifest(digest) == Manifest.of(ours)
