"""docker-compose.yml as a user runs it, with everything of its own: names, ports, volumes and the folder of results."""

import itertools
import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_NUMBERS = itertools.count()


def run(*words: str | Path, variables: dict[str, str] | None = None, timeout_s: float = 300) -> str:
    """A command to its end; what it printed. Fails the test, with all it said, when it fails."""
    ran = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(map(str, words))}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    return ran.stdout


def compose_command() -> list[str]:
    """docker-compose 1.29, or Compose v2. Skips the test where there is neither, or no engine."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers on this machine")
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("neither docker-compose nor Compose v2 is on this machine")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Compose:
    """One project.

    Attributes:
        results: The folder of the host; nobody has made it yet.
        port: Where the coordinator is.
        settings: Variables of docker-compose.yml, beside these.
        project: Its name.
        dashboard_port: Where the dashboard is.
    """

    results: Path
    settings: dict[str, str] = field(default_factory=dict)
    project: str = field(default_factory=lambda: f"fedstep-test-{os.getpid()}-{next(_NUMBERS)}")
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    command: list[str] = field(default_factory=compose_command)

    def __call__(self, *words: str, timeout_s: float = 300) -> str:
        mine = {name: value for name, value in os.environ.items() if name.startswith("FEDSTEP_")}
        variables = {
            **dict.fromkeys(mine, ""),  # an empty one counts as none
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_HTTP_TIMEOUT": "300",  # an engine that shares a busy machine
            "FEDSTEP_RESULTS": str(self.results),
            "FEDSTEP_PORT": str(self.port),
            "FEDSTEP_DASHBOARD_PORT": str(self.dashboard_port),
            **self.settings,
        }
        return run(*self.command, *words, variables=variables, timeout_s=timeout_s)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """As `docker inspect` shows them, by name."""
        labels = [f"label=com.docker.compose.project={self.project}"]
        labels += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [word for label in labels for word in ("--filter", label)]
        ids = run("docker", "ps", "--all", "--quiet", "--no-trunc", *filters).split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *ids)) if ids else []
        return sorted(found, key=lambda container: str(container["Name"]))

    def one(self, service: str) -> dict[str, Any]:
        (found,) = self.containers(service)
        return found

    def log(self, container: dict[str, Any]) -> str:
        return run("docker", "logs", container["Id"])
