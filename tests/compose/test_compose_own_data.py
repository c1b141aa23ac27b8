"""docker-compose.yml with a study, a task and data of one's own, and clients that are slow on purpose."""

import csv
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose.project import Compose, run
from e2e.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]

BUILD_S, STUDY_S = 900, 400

TASK = """
from fedstep.client.tasks.tabular import ColumnMap, TabularTask


class Patients(TabularTask):
    name = "patients"
    defaults = {"lr": 0.1}
    columns = ColumnMap(features=("age", "pressure"), target="back", classes=("no", "yes"))


task = Patients()
"""

STUDY = """
name = "patients"
task = "patients"

[space]
lr = { low = 0.01, high = 1.0, log = true }

[objective]
metric = "accuracy"
direction = "maximize"

[tuner]
name = "random"

[round]
cohort_size = 5
min_clients = 5
deadline = "20s"

[budget]
trials = 2
rounds_per_trial = 4
"""


def write_input(folder: Path) -> None:
    """A task, a study and a table that a line divides; any user may read them."""
    draws = random.Random(0)
    (folder / "patients.py").write_text(TASK)
    (folder / "patients.toml").write_text(STUDY)
    with (folder / "patients.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "pressure", "back"])
        for _ in range(400):
            age, pressure = draws.gauss(0, 1), draws.gauss(0, 1)
            rows.writerow([f"{age:.4f}", f"{pressure:.4f}", "yes" if age + pressure > 0 else "no"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    folder = tmp_path_factory.mktemp("own")
    write_input(folder)
    settings = {
        "FEDSTEP_INPUT": str(folder),
        "FEDSTEP_STUDY": "/input/patients.toml",
        "FEDSTEP_TASK": "/input/patients.py",
        "FEDSTEP_DATA": "/input/patients.csv",
        "FEDSTEP_OPTIONS": "partitioner=iid validation=0.25",
        "FEDSTEP_SHARES": "6",
        "FEDSTEP_CLIENTS": "3",
    }
    compose = Compose(folder / "results", settings)
    run("chmod", "-R", "a+rX", folder)
    try:
        compose("build", timeout_s=BUILD_S)
        compose("--profile", "stragglers", "up", "--detach")
        study = lambda: compose.one("study")["State"]  # noqa: E731
        eventually(lambda: study()["Status"] == "exited", "the study has ended", STUDY_S)
        assert study()["ExitCode"] == 0, compose.log(compose.one("study"))[-4000:]
        yield compose
    finally:
        compose("--profile", "stragglers", "down", "--volumes")


def test_a_study_of_ones_own_is_tuned_on_ones_own_data(finished: Compose) -> None:
    study = json.loads((finished.results / "patients" / "result.json").read_text())
    assert study["state"] == "STUDY_STATE_COMPLETED"
    assert study["result"]["metrics"]["accuracy"] > 0.85


def test_stragglers_are_slow_and_have_shares_of_their_own(finished: Compose) -> None:
    clients, stragglers = finished.containers("client"), finished.containers("straggler")
    assert (len(clients), len(stragglers)) == (3, 3)
    for straggler in stragglers:
        assert straggler["HostConfig"]["NanoCpus"] == 500_000_000
        assert "FEDSTEP_SLOWDOWN=5" in straggler["Config"]["Env"]
    names = [re.findall(r"as (client-\d+)", finished.log(client)) for client in (*clients, *stragglers)]
    assert {name for found in names for name in found} == {f"client-{share}" for share in range(1, 7)}
