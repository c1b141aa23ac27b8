"""What lets others look into a coordinator, of one that has run a study: metrics, logs, event files, the dashboard."""

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from e2e.processes import Program, Programs, Ran, connected, fedstep, gone
from e2e.studies import write_study
from e2e.waiting import eventually
from prometheus_client.parser import text_string_to_metric_families

ROLES = ("client", "operator")
ROUNDS = 4


@dataclass(frozen=True)
class Looked:
    """A coordinator with all views and two clients, and a study that it has run."""

    folder: Path
    operator: tuple[str | Path, ...]
    coordinator: Program
    clients: list[Program]
    views: dict[str, str]
    cost: Ran


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    folder = tmp_path_factory.mktemp("views")
    pki = folder / "fedstep-pki"
    fedstep("pki", "init", "coordinator.example", cwd=folder)
    for role in ROLES:
        fedstep("pki", "token", folder / role)
    with Programs(folder / "logs") as programs:
        coordinator, address = programs.coordinator(
            folder / "data",
            *("--tls-cert", pki / "coordinator.crt", "--tls-key", pki / "coordinator.key"),
            *("--client-token-file", folder / "client", "--operator-token-file", folder / "operator"),
            *("--metrics-port", "0", "--dashboard-port", "0", "--tensorboard", folder / "board"),
            *("--verbose", "--log-format", "json"),
        )
        shared = ("--tls-ca", pki / "ca.crt", "--token-file", folder / "client", "--verbose", "--log-format", "json")
        clients = [programs.client(address, f"c{i}", "--partition", f"{i}/8", *shared) for i in (1, 2)]
        connected(*clients)
        file = write_study(
            folder / "study.toml",
            task="digits",
            tuner={"name": "optuna"},
            round={"min_clients": 2, "cohort_size": 2},
            budget={"trials": 2, "rounds_per_trial": 2},
        )
        operator = ("--coordinator", address, "--tls-ca", pki / "ca.crt", "--token-file", folder / "operator")
        ran = fedstep("study", "run", file, *operator)
        assert ran.code == 0, ran.err
        cost = fedstep("study", "cost", "s", *operator, "--json")
        yield Looked(folder, operator, coordinator, clients, coordinator.json[0], cost)


def scraped(url: str) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels."""
    with urlopen(url, timeout=20) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return {" ".join((s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items())))): s.value for s in samples}


def test_a_scrape_tells_of_rounds_bytes_clients_and_what_tuning_took(looked: Looked) -> None:
    def up_to_date() -> dict[str, float] | None:
        found = scraped(looked.views["metrics"])
        told = found.get("fedstep_studies state=completed") == 1 and found.get("fedstep_study_rounds study=s") == ROUNDS
        return found if told else None

    found = eventually(up_to_date, "the metrics tell of the study's end")
    assert found["fedstep_rounds_total"] == found["fedstep_round_duration_seconds_count"] == ROUNDS
    assert found["fedstep_updates_total outcome=accepted"] == 2 * ROUNDS
    assert found["fedstep_updates_total outcome=refused"] == 0
    assert found["fedstep_clients state=idle"] == 2
    assert found["fedstep_payload_bytes_total direction=down"] > found["fedstep_payload_bytes_total direction=up"] > 0
    assert found["fedstep_event_loop_lag_seconds_count"] > 0
    assert 0 < found["fedstep_tuner_cpu_seconds_total"] < found["fedstep_tuner_seconds_total"] * 2
    assert found["fedstep_database_commit_seconds_total"] > 0
    assert found["fedstep_executor_queue_length executor=storage"] >= 0
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["fedstep_study_tuning_rounds study=s"] == ROUNDS / 2
    assert 0 < found["fedstep_study_tuning_payload_bytes study=s"] < found["fedstep_study_payload_bytes study=s"]
    assert not any(name in sample for sample in found for name in ("c1", "c2"))


def test_what_ended_studies_have_cost_is_told_after_a_restart_too(tmp_path: Path) -> None:
    with Programs(tmp_path / "logs") as programs:
        first, address = programs.coordinator(tmp_path / "data")
        connected(programs.client(address, "c0", "--partition", "1/8"))
        alone = {"min_clients": 1, "cohort_size": 1}
        file = write_study(tmp_path / "study.toml", task="digits", round=alone, budget={"trials": 1})
        assert fedstep("study", "run", file, "--coordinator", address).code == 0
        cost = fedstep("study", "cost", "s", "--coordinator", address, "--json").json[0]
        first.send(signal.SIGTERM)
        first.wait()
        again, _ = programs.coordinator(tmp_path / "data", "--metrics-port", "0")

        def told() -> float | None:
            return scraped(again.json[0]["metrics"]).get("fedstep_study_payload_bytes study=s")

        assert eventually(told, "the metrics tell of the study") == sum(
            int(cost["total"][part]) for part in ("model_bytes", "update_bytes")
        )


def test_the_command_prints_what_the_study_cost(looked: Looked) -> None:
    (cost,) = looked.cost.json
    assert cost["total"]["rounds"] == str(ROUNDS)
    assert {one["client_name"] for one in cost["clients"]} == {"c1", "c2"}
    assert 0 < cost["tuning"]["byte_share"] < 1
    plain = fedstep("study", "cost", "s", *looked.operator)
    assert re.search(r"delivered +1 ", plain.out), plain.out
    assert "c2" in plain.out


def lines(program: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in program.err.splitlines()]


def test_every_line_of_a_log_is_json_and_says_what_it_concerns(looked: Looked) -> None:
    found = lines(looked.coordinator)
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in found)
    rounds = [line for line in found if line["message"].startswith("round_committed")]
    places = [(line["study"], line["trial"], line["round"]) for line in rounds]
    assert places == [("s", trial, round) for trial in (0, 1) for round in (0, 1)]
    trained = [line for line in found if line["message"].startswith("training accepted")]
    assert {(line["client"], line["trial"], line["round"]) for line in trained} == {
        (client, trial, round) for client in ("c1", "c2") for trial in (0, 1) for round in (0, 1)
    }
    for number, client in enumerate(looked.clients, 1):
        outcomes = [
            line for line in lines(client) if line["message"].startswith("outcome") and "steps" in line["message"]
        ]
        assert {(line["client"], line["study"], line["trial"], line["round"]) for line in outcomes} == {
            (f"c{number}", "s", trial, round) for trial in (0, 1) for round in (0, 1)
        }
    everything = "".join(program.err + program.out for program in (looked.coordinator, *looked.clients))
    assert not any((looked.folder / role).read_text().strip() in everything for role in ROLES)


def test_event_files_are_read_back(looked: Looked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(run: str) -> EventAccumulator | None:
        found = EventAccumulator(str(looked.folder / "board" / "s" / run))
        found.Reload()
        return found if "objective" in found.Tags()["scalars"] and len(found.Scalars("objective")) == 2 else None

    for run in ("trials/0000", "trials/0001", "delivered"):
        found = eventually(lambda run=run: read(run), f"{run} is written")  # type: ignore[misc]  # mypy knows no such lambda
        assert {"objective", "metrics/loss", "metrics/train_loss", "hyperparameters/lr", "round/seconds"} <= {
            *found.Tags()["scalars"]
        }
        assert [event.step for event in found.Scalars("objective")] == [0, 1]
        assert 0.01 <= found.Scalars("hyperparameters/lr")[0].value <= 0.5


def asked(url: str, method: str = "GET") -> Any:
    with urlopen(Request(url, method=method, data=None if method == "GET" else b"{}"), timeout=20) as answer:
        return json.load(answer)


def test_the_dashboard_shows_the_study_and_changes_nothing(looked: Looked) -> None:
    url = looked.views["dashboard"]
    (study,) = asked(f"{url}api/studies")["study_summaries"]
    assert study["study_name"] == "s"
    for method, path in (("DELETE", f"api/studies/{study['study_id']}"), ("POST", "api/studies")):
        with pytest.raises(HTTPError) as refused:
            asked(url + path, method)
        assert refused.value.code == 405
    assert len(asked(f"{url}api/studies")["study_summaries"]) == 1
    with urlopen(f"{url}dashboard", timeout=20) as page:
        assert "Optuna" in page.read().decode()


def test_the_dashboard_ends_with_its_coordinator_however_that_ends(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with Programs(tmp_path / f"logs{number}") as programs:
            coordinator, _ = programs.coordinator(tmp_path / "data", "--dashboard-port", "0")
            children = coordinator.descendants()
            assert any("fedstep.server.dashboard" in child.cmdline() for child in children)
            coordinator.send(number)
            coordinator.wait()
            assert gone(children) == []


def test_a_port_that_is_taken_is_named(looked: Looked, tmp_path: Path) -> None:
    for view in ("metrics", "dashboard"):
        taken = re.findall(r":(\d+)/", looked.views[view])[0]
        ran = fedstep("coordinator", "--port", "0", "--data-dir", tmp_path / view, f"--{view}-port", taken)
        assert ran.code != 0
        assert "Traceback" not in ran.err
        assert f"127.0.0.1:{taken}" in ran.err
        assert f"--{view}-port" in ran.err
    assert psutil.pid_exists(looked.coordinator.pid)
