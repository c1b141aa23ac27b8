import pytest
import torch

from fedstep.client.device import choose_device, describe_device, limit_threads
from fedstep.common.errors import InvalidInputError


def test_cpu_can_always_be_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert describe_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, True, "cuda:0"), (0, True, "mps"), (0, False, "cpu")])
def test_the_best_there_is_comes_first(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert str(choose_device()) == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(InvalidInputError, match=r"no cuda:2 \(cuda:0, cuda:1 found\)"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InvalidInputError, match="no CUDA device found"):
        choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="no mps"):
        choose_device("mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_threads_can_be_limited() -> None:
    before = torch.get_num_threads()
    try:
        limit_threads(1)
        assert torch.get_num_threads() == 1
        limit_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
