"""How a scaled client finds the share of the data that nobody else has."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e.waiting import eventually

SCRIPT = Path(__file__).parents[3] / "deploy/compose/client.sh"
# In place of `fedstep`: says what it was started with, and stays.
STUB = '#!/bin/sh\necho "$@" "$FEDSTEP_TLS_CERT"\nexec sleep 1000\n'


class Client:
    """A running script."""

    def __init__(self, folder: Path, number: int, shares: int) -> None:
        self._out = folder / f"{number}.out"
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [SCRIPT, "--task", "digits"],
                env={"PATH": path, "FEDSTEP_SHARES": str(shares), "FEDSTEP_SHARES_FOLDER": str(folder / "shares")},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def says(self) -> str:
        return eventually(self._out.read_text, "it says something")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Client]]:
    (tmp_path / "shares").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/fedstep").write_text(STUB)
    (tmp_path / "bin/fedstep").chmod(0o755)
    started: list[Client] = []

    def one(shares: int) -> Client:
        started.append(Client(tmp_path, len(started), shares))
        return started[-1]

    yield one
    for client in started:
        client.process.kill()
        client.process.wait()


def share_of(client: Client) -> str:
    words = client.says().split()
    assert words[:2] == ["client", "--partition"]
    assert words[3:] == ["--task", "digits", f"/secrets/client/client-{words[2].split('/')[0]}.crt"]
    return words[2]


def test_clients_that_start_together_take_different_shares(start: Callable[[int], Client]) -> None:
    clients = [start(8) for _ in range(8)]
    assert sorted(map(share_of, clients)) == [f"{share}/8" for share in range(1, 9)]


def test_a_killed_clients_share_goes_to_the_next_and_a_paused_ones_does_not(start: Callable[[int], Client]) -> None:
    first, second = start(3), None
    assert share_of(first) == "1/3"
    second = start(3)
    assert share_of(second) == "2/3"
    second.process.send_signal(signal.SIGSTOP)
    first.process.kill()
    first.process.wait()
    assert share_of(start(3)) == "1/3"
    assert share_of(start(3)) == "3/3"


def test_a_client_too_many_waits_and_says_so(start: Callable[[int], Client]) -> None:
    first = start(1)
    assert share_of(first) == "1/1"
    second = start(1)
    assert second.says().startswith("All 1 shares of the data are taken; waiting for one.")
    first.process.kill()
    eventually(lambda: "client --partition 1/1" in second.says(), "it takes the share that is free now")


def test_a_client_that_waits_can_be_stopped(start: Callable[[int], Client]) -> None:
    share_of(start(1))
    waiting = start(1)
    waiting.says()
    waiting.process.terminate()
    assert waiting.process.wait(60) == 143
