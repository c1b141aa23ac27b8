"""The processes of the demo."""

from pathlib import Path

import psutil
import pytest
from e2e.waiting import eventually

from fedstep.common.security_options import VARIABLES
from fedstep.server.cli.coordinator import DATABASE_VARIABLES
from fedstep.server.cli.processes import Processes


def test_they_take_nothing_that_is_for_another_coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *DATABASE_VARIABLES):
        monkeypatch.setenv(name, "for another coordinator")
    monkeypatch.setenv("KEPT", "yes")
    with Processes(tmp_path / "logs") as processes:
        pid = processes.start_client("ann", ["--coordinator", "127.0.0.1:9", "--task", "digits"])
        process = psutil.Process(pid)
        eventually(process.environ, "the program has its environment")  # empty for a moment, while it is begun
        environment = process.environ()
    assert not environment.keys() & {*VARIABLES, *DATABASE_VARIABLES}
    assert environment["KEPT"] == "yes"
