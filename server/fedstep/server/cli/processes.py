"""A coordinator and clients as child processes, started together and ended together."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fedstep.common.errors import UnavailableError
from fedstep.common.security_options import VARIABLES
from fedstep.server.cli.coordinator import DATABASE_VARIABLES

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 15.0
CLIENT_NICENESS = 5


class Processes:
    """Child processes that do not outlive the `with` block.

    They do not see the terminal's Ctrl-C: they are ended in order, clients first, so that the coordinator can commit.

    Args:
        logs: A folder for what they print.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._coordinator: subprocess.Popen[bytes] | None = None
        self._files = ExitStack()

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def start_coordinator(self, arguments: Sequence[str]) -> str:
        """Starts the coordinator and waits until it listens; answers with its address.

        Raises:
            UnavailableError: It ended, or did not listen in time.
        """
        with _uninterrupted():
            process = self._coordinator = self._start("coordinator", ["coordinator", *arguments, "--json"], piped=True)
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            ready = waiting.select(START_TIMEOUT_S)
        said = json.loads(process.stdout.readline() or b"{}") if ready else {}
        if "address" not in said:
            reason = said.get("error") or f"it said nothing within {START_TIMEOUT_S:g} s"
            raise UnavailableError(f"The coordinator did not start: {reason} ({self._logs / 'coordinator.log'})")
        return str(said["address"])

    def start_client(self, name: str, arguments: Sequence[str]) -> int:
        """Starts one client, at a lower priority than the coordinator: it may take its time, the loop may not.

        Returns:
            Its process id.
        """
        with _uninterrupted():
            process = self._start(name, ["client", "--name", name, *arguments])
            self._clients[name] = process
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, process.pid, CLIENT_NICENESS)
        return process.pid

    def ended_clients(self) -> list[str]:
        """The names of the clients that have ended by themselves."""
        return [name for name, process in self._clients.items() if process.poll() is not None]

    def last_words(self, name: str) -> str:
        """The last line of a child's log."""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("fedstep: ") if lines else "it said nothing."

    def _start(self, name: str, arguments: Sequence[str], piped: bool = False) -> subprocess.Popen[bytes]:
        log = self._files.enter_context((self._logs / f"{name}.log").open("ab"))
        program = [sys.executable, "-c", "from fedstep.common.cli import main; main()"]
        # They speak to each other on this machine: what the caller uses for another coordinator is not for them.
        kept = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, *DATABASE_VARIABLES)}
        return subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else log,
            stderr=log,
            env={**kept, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _uninterrupted():
            self._end([*self._clients.values()])
            self._end([self._coordinator] if self._coordinator else [])
            if self._coordinator is not None and self._coordinator.stdout is not None:
                self._coordinator.stdout.close()
            self._files.close()

    def _end(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_TIMEOUT_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds back Ctrl-C and its like until the end of the block: a child that is not noted yet would never be ended."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
