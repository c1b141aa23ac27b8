"""The models that clients may fetch."""

import pytest
import torch

from fedstep.common.errors import UnavailableError
from fedstep.common.tensors import Manifest, pack, sha256
from fedstep.server.coordination.shelf import Shelf, cut


def test_models_of_the_same_bytes_never_share_a_layout() -> None:
    ours, theirs = {"fc.weight": torch.zeros(2, 3)}, {"head.weight": torch.zeros(3, 2)}
    layout, other = Manifest.of(ours), Manifest.of(theirs)
    payload = pack(ours, layout)
    digest = sha256(payload)
    assert digest == sha256(pack(theirs, other))
    shelf = Shelf()
    shelf.put(cut(payload), layout, digest)
    for attempt in (lambda: shelf.put(cut(payload), other, digest), lambda: shelf.share(digest, other)):
        with pytest.raises(UnavailableError, match=f"{digest.hex()[:16]}.*fc.weight is missing.*initial weights"):
            attempt()
    assert shelf.share(digest, layout)
    assert shelf.get(digest).manifest == layout
    for _ in range(2):
        shelf.drop(digest)
    shelf.put(cut(payload), other, digest)
    assert shelf.get(digest).manifest == other
