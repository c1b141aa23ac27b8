"""Where the local training runs: CUDA, MPS or the CPU; in which precision, and where its samples lie."""

import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.data import TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.task import Samples

_NEAR_SHARE = 0.1
"""Of a GPU's free memory, what the samples of one set may take: several clients that share it leave room."""


@dataclass(frozen=True)
class Compute:
    """What the local training is computed on.

    Attributes:
        device: Where.
        bfloat16: By mixed precision: parameters, gradients and the optimizer stay float32.
    """

    device: torch.device
    bfloat16: bool = False

    def autocast(self) -> torch.autocast:
        """Around a forward pass and its loss."""
        return torch.autocast(self.device.type, torch.bfloat16)


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one the first there is of CUDA, MPS and CPU.

    Args:
        name: Such as `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        InvalidInputError: There is no such device here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f'There is no device "{name}": give cpu, cuda, cuda:N or mps.') from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            here = ", ".join(f"cuda:{index}" for index in range(count)) or "no CUDA device"
            raise InvalidInputError(f"This machine has no {name} ({here} found): leave --device out or give cpu.")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InvalidInputError("This machine has no mps: leave --device out or give cpu.")
    if device.type not in ("cpu", "mps"):
        raise InvalidInputError(f'fedstep does not train on "{name}": give cpu, cuda, cuda:N or mps.')
    return device


def choose_bfloat16(name: str | None, device: torch.device) -> bool:
    """Whether to train by bfloat16; without a name, where it is a GPU that does so in hardware.

    Args:
        name: `float32`, `bfloat16`, or None.
        device: Where.

    Raises:
        InvalidInputError: The device does not.
    """
    able = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
    if name is None:
        return able and device.type == "cuda"
    if name == "bfloat16" and not able:
        raise InvalidInputError(f"{device} does not compute in bfloat16: leave --precision out or give float32.")
    return name == "bfloat16"


def near(samples: Samples, device: torch.device, free_bytes: Callable[[torch.device], int] | None = None) -> Samples:
    """The samples where they are quickly on the device: on it if they are few, else in memory it copies from by itself.

    Only a `TensorDataset` is moved.

    Args:
        samples: What is passed over again and again.
        device: Where it is needed.
        free_bytes: How much memory of a GPU is free now; CUDA's own answer unless given.
    """
    if not isinstance(samples, TensorDataset):
        return samples
    if device.type == "cuda":
        size_bytes = sum(tensor.nbytes for tensor in samples.tensors)
        if size_bytes > _NEAR_SHARE * (free_bytes or _free_bytes)(device):
            return TensorDataset(*(tensor.pin_memory() for tensor in samples.tensors))
    return TensorDataset(*(tensor.to(device) for tensor in samples.tensors))


def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free


def describe_device(device: torch.device, bfloat16: bool = False) -> str:
    """The device in words for the coordinator, such as `cuda:0 (NVIDIA H200), bfloat16`."""
    words = str(device)
    if device.type == "cuda":
        words = f"{device} ({torch.cuda.get_device_name(device)})"
    elif device.type == "mps":
        words = f"mps ({platform.machine()})"
    return f"{words}, bfloat16" if bfloat16 else words
