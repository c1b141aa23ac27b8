"""fedstep's programs as real processes: watched through what they print, and ended by their own pids."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from e2e.waiting import PATIENCE_S, eventually

FEDSTEP = str(Path(sys.executable).with_name("fedstep"))
ROOT = Path(__file__).parents[2]
ENDING_S = 20.0


def json_lines(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a program's output, one a line; other lines, and one still being written, are passed over."""
    whole = (line for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n"))
    return [json.loads(line) for line in whole]


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return json_lines(self.out)


def fedstep(
    *arguments: str | Path,
    timeout_s: float = PATIENCE_S,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """Runs a command to its end, with these variables in its environment."""
    done = subprocess.run(
        [FEDSTEP, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**environment(), **(variables or {})},
        cwd=cwd,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    """Wide lines, one thread a program."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDSTEP_")}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "250"}


class Program:
    """A program that runs, and what it has printed so far."""

    def __init__(self, arguments: list[str], folder: Path, number: int, variables: Mapping[str, str]) -> None:
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"
        self._started: set[psutil.Process] = set()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [FEDSTEP, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**environment(), **variables},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def json(self) -> list[dict[str, Any]]:
        return json_lines(self.out)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def says(self, text: str) -> bool:
        return text in self.out

    def until(self, condition: Callable[["Program"], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Waits for something it prints; fails at once, with what it said, when it ends before."""
        eventually(lambda: condition(self) or self.ended, what, timeout_s)
        assert condition(self), f"it ended before this: {what}\n{self.out[-2000:]}\n{self.err[-2000:]}"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait()

    def descendants(self) -> list[psutil.Process]:
        """What it has started; remembered, so that it can be ended even when this has crashed."""
        with suppress(psutil.NoSuchProcess):
            now = psutil.Process(self.pid).children(recursive=True)
            self._started.update(now)
            return now
        return []

    def end(self) -> None:
        """Politely at first; whatever it leaves behind is ended too."""
        self.descendants()
        if not self.ended:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.wait(ENDING_S)
        if not self.ended:
            self.kill()
        for process in self._started:
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Programs:
    """The programs of a test; none of them outlives it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Program] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in reversed(self._running):  # clients before their coordinator
            program.end()

    def start(self, *arguments: str | Path, variables: Mapping[str, str] | None = None) -> Program:
        words = [str(argument) for argument in arguments]
        program = Program(words, self._folder, len(self._running), variables or {})
        self._running.append(program)
        return program

    def coordinator(self, folder: Path, *arguments: str | Path, port: int = 0) -> tuple[Program, str]:
        """A coordinator that listens, and its address."""
        program = self.start("coordinator", "--port", str(port), "--data-dir", folder, "--json", *arguments)
        program.until(lambda p: p.json, "the coordinator listens")
        return program, str(program.json[0]["address"])

    def client(self, address: str, name: str, *arguments: str | Path, task: str | Path = "digits") -> Program:
        """A client, perhaps not connected yet."""
        return self.start(
            *("client", "--coordinator", address, "--task", task, "--name", name, "--threads", "1", *arguments)
        )


def connected(*clients: Program) -> None:
    """Waits until every client has been welcomed."""
    for client in clients:
        client.until(lambda p: p.says("connected to") or p.says('"connected"'), "the client is connected")


def clients_of(address: str) -> Mapping[str, dict[str, Any]]:
    """`fleet list --json`, by name."""
    return {client["name"]: client for client in fedstep("fleet", "list", "--coordinator", address, "--json").json}


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that still run after a moment to end in."""
    deadline = time.monotonic() + ENDING_S
    while (left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    return left
