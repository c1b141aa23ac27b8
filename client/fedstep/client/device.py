"""Where the local training runs: CUDA, MPS or the CPU."""

import platform

import torch

from fedstep.common.errors import InvalidInputError


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


def describe_device(device: torch.device) -> str:
    """The device in words for the coordinator, such as `cuda:0 (NVIDIA H200)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return f"mps ({platform.machine()})"
    return str(device)


def limit_threads(threads: int | None) -> None:
    """Lets torch use that many CPU cores in this process; None leaves it to torch.

    Several clients on one machine want 1 each: threads of more than one client on the same core wait for each other.
    """
    if threads is not None:
        torch.set_num_threads(threads)
