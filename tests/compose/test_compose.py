"""The whole of docker-compose.yml: a study from nothing to its end, with a client killed and another paused in it."""

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compose.project import Compose, run
from e2e.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

BUILD_S, STUDY_S = 900, 400
CLIENTS = 10


@dataclass(frozen=True)
class Finished:
    """A study that has ended, and what it was disturbed by."""

    compose: Compose
    folder: Path
    killed: str
    paused: str


def wait_for_study(compose: Compose) -> None:
    """Until the study's container has ended."""
    eventually(lambda: compose.one("study")["State"]["Status"] == "exited", "the study has ended", STUDY_S)
    study = compose.one("study")
    assert study["State"]["ExitCode"] == 0, compose.log(study)[-4000:]


def shares(compose: Compose) -> list[str]:
    """What the running clients call themselves; that is their share."""
    running = [client for client in compose.containers("client") if client["State"]["Running"]]
    return [re.findall(r"as (client-\d+)", compose.log(client))[-1] for client in running]


def spoken(compose: Compose) -> bool:
    """Whether every running client has been welcomed."""
    running = [client for client in compose.containers("client") if client["State"]["Running"]]
    return all("connected to" in compose.log(client) for client in running)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    compose = Compose(tmp_path_factory.mktemp("compose") / "results")
    try:
        compose("build", timeout_s=BUILD_S)
        compose("up", "--detach")
        eventually(lambda: "Trial 1 round 1" in compose.log(compose.one("study")), "the study is under way", STUDY_S)
        killed, paused, *_ = compose.containers("client")
        run("docker", "kill", killed["Id"])
        run("docker", "pause", paused["Id"])
        wait_for_study(compose)
        yield Finished(compose, compose.results / "compose", killed["Id"], paused["Id"])
    finally:
        for client in compose.containers("client"):
            if client["State"]["Paused"]:
                run("docker", "unpause", client["Id"])
        compose("down", "--volumes")


def test_the_study_and_its_files_are_in_the_folder_of_the_host(finished: Finished) -> None:
    assert {path.name for path in finished.folder.iterdir()} == {
        "model.safetensors",
        "report",
        "report.html",
        "study.png",
        "result.json",
        "trials.jsonl",
    }
    study = json.loads((finished.folder / "result.json").read_text())
    assert study["state"] == "STUDY_STATE_COMPLETED"
    assert study["result"]["held_out"] is True
    assert study["result"]["metrics"]["accuracy"] >= 0.8
    assert len((finished.folder / "trials.jsonl").read_text().splitlines()) == 10
    assert (finished.folder / "study.png").read_bytes().startswith(b"\x89PNG")
    assert (finished.folder / "model.safetensors").stat().st_size > 10_000


def test_every_client_has_a_share_of_its_own_and_trained(finished: Finished) -> None:
    everybody = finished.compose.containers("client")
    assert len(everybody) == CLIENTS
    named = [re.findall(r"as (client-\d+)", finished.compose.log(client)) for client in everybody]
    assert len({names[0] for names in named}) == CLIENTS


def test_nobody_is_root_and_nothing_can_be_written_to(finished: Finished) -> None:
    seen = set()
    for container in finished.compose.containers():
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        seen.add(service)
        host: dict[str, Any] = container["HostConfig"]
        assert container["Config"]["User"] in ("1000:1000", "postgres"), service
        assert host["ReadonlyRootfs"] is True, service
        assert host["CapDrop"] == ["ALL"], service
        assert not host["Privileged"], service
        if service != "folder":
            assert not host["CapAdd"], service
            assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"]), service
        if container["State"]["Running"] and not container["State"]["Paused"]:
            processes = run("docker", "top", container["Id"], "-eo", "pid,uid").splitlines()[1:]
            assert processes, service
            assert "0" not in {line.split()[1] for line in processes}, service
    assert seen == {"secrets", "folder", "database", "coordinator", "dashboard", "client", "study"}


def test_no_secret_is_where_others_read_it(finished: Finished) -> None:
    password = run("docker", "exec", finished.compose.one("database")["Id"], "cat", "/secrets/database/fedstep")
    assert len(password) > 30
    for container in finished.compose.containers():
        assert password not in json.dumps(container)
        assert password not in finished.compose.log(container)


def test_after_the_study_everything_waits_and_nothing_starts_again(finished: Finished) -> None:
    for container in finished.compose.containers():
        assert container["RestartCount"] == 0, container["Name"]
    for service in ("coordinator", "database"):
        eventually(lambda s=service: finished.compose.one(s)["State"]["Health"]["Status"] == "healthy", service)


def test_the_dashboard_shows_the_study_and_may_not_change_it(finished: Finished) -> None:
    address = f"http://127.0.0.1:{finished.compose.dashboard_port}"

    def studies() -> list[dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{address}/api/studies", timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["study_summaries"]
                return found
        except (OSError, http.client.HTTPException):  # it is starting
            return []

    (study,) = eventually(studies, "the dashboard shows it")
    assert "compose" in study["study_name"]
    request = urllib.request.Request(f"{address}/api/studies/{study['study_id']}", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(request, timeout=30)
    assert studies() == [study]


def test_the_clients_image_has_neither_optuna_nor_sqlalchemy(finished: Finished) -> None:
    installed = run(
        *("docker", "run", "--rm", "--entrypoint", "python", "fedstep-client", "-c"),
        "from importlib.util import find_spec\n"
        "print([name for name in ('torch', 'optuna', 'sqlalchemy', 'alembic') if find_spec(name)])",
    )
    assert installed.strip() == "['torch']"


def test_once_more_shows_the_result_and_brings_the_killed_client_back(finished: Finished) -> None:
    run("docker", "unpause", finished.paused)
    compose, picture = finished.compose, (finished.folder / "study.png").read_bytes()
    compose("up", "--detach")
    wait_for_study(compose)
    assert "Best hyper-parameters" in compose.log(compose.one("study"))
    assert (finished.folder / "study.png").read_bytes() == picture
    eventually(lambda: spoken(compose), "all clients are connected")
    assert len(set(shares(compose))) == CLIENTS
