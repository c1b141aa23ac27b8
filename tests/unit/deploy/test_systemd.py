"""The units: held against systemd itself, and against what fedstep's commands take."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fedstep.common.cli import fedstep

UNITS = sorted((Path(__file__).parents[3] / "deploy/systemd").glob("*.service"))
FEDSTEP = "/opt/fedstep/bin/fedstep"
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not on this machine")


def verify(text: str, folder: Path) -> str:
    """What systemd has to say against a unit whose program is this machine's."""
    unit = folder / "fedstep-unit.service"
    unit.write_text(text.replace(FEDSTEP, sys.executable))
    ran = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    # It looks at the machine's other units too.
    return "\n".join(line for line in ran.stderr.splitlines() if unit.name in line)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_against_a_unit(unit: Path, tmp_path: Path) -> None:
    assert verify(unit.read_text(), tmp_path) == ""


@needs_systemd
def test_a_misspelt_key_would_be_noticed(tmp_path: Path) -> None:
    assert "Restrat" in verify(UNITS[0].read_text().replace("Restart=", "Restrat="), tmp_path)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_units_command_is_one_that_fedstep_takes(unit: Path) -> None:
    found = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", unit.read_text(), re.M)
    assert found
    words = found[1].replace("\\\n", " ").split()
    assert words[0] == FEDSTEP
    assert words[-1] == "$OPTIONS"
    values = {"${COORDINATOR}": "coordinator.example:7433", "${TASK}": "digits", "${HOST}": "0.0.0.0"}
    command = fedstep.get_command(click.Context(fedstep), words[1])
    assert command is not None
    command.make_context(words[1], [values.get(word, word) for word in words[2:-1]])
    assert unit.name == f"fedstep-{words[1]}.service"
