"""How many CPU cores a client may use: its fair share of those that its machine, or its container, has."""

import math
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fedstep.client.claims import claim_number, common_folder
from fedstep.client.naming import user_name

_MOST = 10_000


def take_cores(threads: int | None, held: ExitStack, environ: Mapping[str, str] | None = None) -> Callable[[], None]:
    """What sets the number of torch's threads, to be called by the thread that computes, before each job.

    Threads of several clients on one core wait for each other: a step takes several times as long. Clients of one user
    on one machine know of each other; who comes or goes changes everybody's share from their next job on.

    Args:
        threads: As many as that; None for a fair share, or for what `OMP_NUM_THREADS` says.
        held: Keeps this client among those that are counted for as long as it is open.
        environ: The process's variables.
    """
    if threads is None and "OMP_NUM_THREADS" in (os.environ if environ is None else environ):
        return lambda: None
    neighbours = None if threads else Neighbours(held)

    def take() -> None:
        wanted = threads or fair_share(available_cores(), neighbours.count() if neighbours else 1)
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)

    return take


def fair_share(cores: float, clients: int) -> int:
    """Whole cores a client; at least one."""
    return max(1, math.floor(cores / max(1, clients)))


def available_cores(proc: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores that this process may run on, no more than its control groups allow it time for.

    A container's limit, such as docker's `--cpus 1.5` or a unit's CPUQuota, is a share of time and leaves every core
    visible. Where there are no control groups, none is looked at.

    Args:
        proc: Says which groups the process is in.
        groups: Where their limits are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quotas = [_quota(folder) for folder in _folders(proc, groups)]
    return min([cores, *(quota for quota in quotas if quota)])


def _folders(proc: Path, groups: Path) -> list[Path]:
    """The process's control group and those around it (version 2), and the container's own (version 1)."""
    try:
        own = next(line[3:] for line in proc.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    parts = [part for part in own.split("/") if part not in ("", "..")]
    return [groups.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)] + [groups / "cpu"]


def _quota(folder: Path) -> float | None:
    """Cores' worth of time; None for no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", or no such file


class Neighbours:
    """The clients of this user that run on this machine now: each holds a numbered file, and loses it when it dies.

    Args:
        held: Keeps this client's for as long as it is open.
        folder: Where the files are; the machine's temporary folder unless given.
    """

    def __init__(self, held: ExitStack, folder: Path | None = None) -> None:
        self._folder = folder or common_folder()
        self._prefix = f"fedstep-{user_name()}-cores"
        self._own = claim_number(self._path, _MOST, held)

    def count(self) -> int:
        """How many there are, this one included; alone where there is no folder to write to."""
        if not self._own:
            return 1
        return 1 + sum(self._taken(path) for path in self._folder.glob(f"{self._prefix}-*.lock"))

    def _taken(self, path: Path) -> bool:
        number = path.stem.rpartition("-")[2]
        if not number.isdecimal() or int(number) == self._own:
            return False
        try:
            with FileLock(self._path(int(number))).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._prefix}-{number}.lock"
