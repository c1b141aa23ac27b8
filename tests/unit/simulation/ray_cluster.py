"""A Ray cluster of a test's own: one node on this machine, ended by its own process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.waiting import eventually

_CPUS = 4
"""What Ray counts by; the machine may have fewer."""

_MEMORY_BYTES = 100_000_000
_ENDING_S = 20.0


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Starts a cluster with ports and a folder of its own; its address.

    `ray stop` would end every cluster on the machine, another test's too. So it is a process in the foreground, which
    takes its own with it.
    """
    # Not pytest's folder: the paths of Ray's sockets would become too long.
    folder = Path(tempfile.mkdtemp(prefix="fedstep-ray-", dir="/tmp"))
    log = folder / "log"
    # Started elsewhere, as clusters are: what is relative to a test's folder must not be found by chance.
    with log.open("w") as out:
        node = subprocess.Popen(
            _command(folder / "ray"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            cwd="/",
            start_new_session=True,
        )
    address = folder / "ray" / "ray_current_cluster"
    try:
        eventually(lambda: address.is_file() or node.poll() is not None, "a Ray cluster runs")
        assert address.is_file(), log.read_text()
        yield address.read_text().strip()
    finally:
        node.terminate()
        try:
            node.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _command(folder: Path) -> list[str]:
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--ray-client-server-port={_free_port()}",
        f"--dashboard-agent-listen-port={_free_port()}",
        f"--num-cpus={_CPUS}",
        f"--object-store-memory={_MEMORY_BYTES}",
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--temp-dir={folder}",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
