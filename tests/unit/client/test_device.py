import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedstep.client.device import choose_bfloat16, choose_device, describe_device, near
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


def test_bfloat16_is_for_those_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert [choose_bfloat16(name, cpu) for name in (None, "float32", "bfloat16")] == [False, False, True]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert [choose_bfloat16(name, gpu) for name in (None, "float32", "bfloat16")] == [True, False, True]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert not choose_bfloat16(None, gpu)
    with pytest.raises(InvalidInputError, match=r"cuda:0 does not compute in bfloat16: leave --precision out"):
        choose_bfloat16("bfloat16", gpu)
    with pytest.raises(InvalidInputError, match=r"mps does not compute in bfloat16"):
        choose_bfloat16("bfloat16", torch.device("mps"))
    assert describe_device(cpu, bfloat16=True) == "cpu, bfloat16"


class Plain(Dataset[tuple[torch.Tensor, ...]]):
    pass


def test_samples_lie_near_their_device_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (moved.append("pinned"), tensor)[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: (moved.append(str(device)), tensor)[1])
    samples = TensorDataset(torch.zeros(10, 24), torch.zeros(10, dtype=torch.int64))  # 960 + 80 bytes
    gpu = torch.device("cuda", 1)
    near(samples, gpu, lambda device: 10_400)
    near(samples, gpu, lambda device: 10_399)
    near(samples, torch.device("cpu"))
    assert moved == ["cuda:1"] * 2 + ["pinned"] * 2 + ["cpu"] * 2


def test_what_is_no_tensor_stays_where_it_is() -> None:
    plain = Plain()
    assert near(plain, torch.device("cpu")) is plain
