"""A connection to a Ray cluster that exists already."""

import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, cast

import ray

from fedstep.common.errors import InvalidInputError, UnavailableError

AUTO = "auto"
"""The cluster that $RAY_ADDRESS names, or that this machine is a part of."""

_PROBE_S = 5.0
_FIX = "start one with `ray start --head`, or name another with --ray-address HOST:PORT"


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster, and disconnects from it; the cluster goes on.

    A program that is connected already stays so, to the cluster that it chose.

    Args:
        address: HOST:PORT, or `AUTO`.

    Raises:
        InvalidInputError: That is no address of a cluster.
        UnavailableError: No cluster answers there, or not one of this version of Ray and Python.
    """
    if ray.is_initialized():
        yield
        return
    _probe(address)
    with redirect_stdout(cast(IO[str], _Apart(sys.stdout))):
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            why = str(error).strip().split("\n")[0].rstrip(".")
            where = "on this machine" if address == AUTO else f"at {address}"
            raise UnavailableError(f"No Ray cluster can be used {where} ({why}): {_FIX}.") from None
        try:
            yield
        finally:
            ray.shutdown()


class _Apart:
    """Standard output, but for what Ray's own threads write: that some process died has no place among results.

    Args:
        output: Where everybody else writes.
    """

    def __init__(self, output: IO[str]) -> None:
        self._output = output

    def write(self, text: str) -> int:
        """Writes to the one or the other."""
        rays = threading.current_thread().name.startswith("ray_")
        return (sys.stderr if rays else self._output).write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._output, name)


def cpus() -> int:
    """How many CPUs the cluster has, taken or not."""
    return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]  # Ray does not annotate it


def _probe(address: str) -> None:
    """Finds out within seconds that nobody answers: Ray tries for five minutes, and writes all of them down."""
    named, origin = _named(address)
    if not named:
        return  # Ray looks for a cluster among this machine's processes
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InvalidInputError(
            f"{named} ({origin}) is no address of a Ray cluster: write HOST:PORT, as `ray start --head` prints it."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UnavailableError(f"No Ray cluster answers at {named} ({origin}; {why}): {_FIX}.") from None


def _named(address: str) -> tuple[str, str]:
    """The address that Ray will try, and where it stands; "" where it stands nowhere."""
    if address != AUTO:
        return address, "--ray-address"
    if named := os.environ.get("RAY_ADDRESS"):
        return named, "$RAY_ADDRESS"
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    last = Path(folder) / "ray" / "ray_current_cluster"  # left behind where a cluster was killed
    return (last.read_text().strip(), str(last)) if last.is_file() else ("", "")
