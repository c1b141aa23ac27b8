"""What a newcomer does by hand: a coordinator, clients, a study file, and questions about what happened."""

import re
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.processes import Programs, Ran, clients_of, connected, fedstep
from e2e.studies import write_study
from safetensors import safe_open
from safetensors.torch import load_file

from fedstep.common.tensors import Manifest, pack, sha256

BUDGET = {"trials": 2, "rounds_per_trial": 2}


@dataclass(frozen=True)
class Terminals:
    """A coordinator with two clients, and a study that has been run to its end."""

    programs: Programs
    address: str
    folder: Path
    study_file: Path
    as_json: Ran

    def fedstep(self, *arguments: str | Path) -> Ran:
        return fedstep(*arguments, "--coordinator", self.address)


def digits(path: Path, **changes: object) -> Path:
    tables = {
        "task": "digits",
        "tuner": {"name": "optuna", "sampler": "TPESampler"},
        "round": {"min_clients": 2, "cohort_size": 2},
        "budget": BUDGET,
    }
    return write_study(path, **{**tables, **changes})


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    folder = tmp_path_factory.mktemp("terminals")
    with Programs(folder / "logs") as programs:
        _, address = programs.coordinator(folder / "data")
        connected(*[programs.client(address, f"c{i}", "--partition", f"{i}/8") for i in (1, 2)])
        file = digits(folder / "study.toml", name="first")
        ran = fedstep("study", "run", file, "--coordinator", address, "--json")
        assert ran.code == 0, ran.err
        yield Terminals(programs, address, folder / "data", file, ran)


def test_a_run_prints_every_event_and_then_the_study(terminals: Terminals) -> None:
    *events, study = terminals.as_json.json
    assert [event["kind"] for event in events] == [
        "study_started",
        *(["trial_started", "round_committed", "round_committed", "trial_completed"] * 2),
        "study_participation",
        "study_completed",
    ]
    numbers = [int(event["number"]) for event in events]
    assert numbers == sorted(set(numbers))
    assert study["state"] == "STUDY_STATE_COMPLETED"
    assert (study["trials_finished"], study["rounds_committed"]) == (2, 4)
    assert 0.01 <= study["best_trial"]["hyperparameters"]["lr"]["double_value"] <= 0.5
    assert study["result"]["held_out"] is True
    assert 0 < study["result"]["metrics"]["accuracy"] <= 1


def test_the_files_it_names_are_there_and_hold_what_they_should(terminals: Terminals) -> None:
    result = terminals.as_json.json[-1]["result"]
    model, picture = Path(result["model_path"]), Path(result["picture_path"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    loaded = load_file(model)
    with safe_open(model, "pt") as file:
        digest = file.metadata()["sha256"]
    # The file names its digest, and its tensors have it.
    state = {name: loaded[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert sha256(pack(state, Manifest.of(state))).hex() == digest
    with closing(sqlite3.connect(result["database_url"].removeprefix("sqlite:///"))) as database:
        (last,) = database.execute(
            "SELECT model_sha256 FROM fedstep_trials WHERE number = ?",
            [terminals.as_json.json[-1]["best_trial"].get("number", 0)],
        ).fetchone()
        assert last.hex() == digest
        assert database.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone() == (2,)
        assert database.execute("SELECT count(*) FROM fedstep_rounds").fetchone() == (4,)


def test_the_same_file_again_shows_the_result_in_words(terminals: Terminals) -> None:
    again = terminals.fedstep("study", "run", terminals.study_file)
    assert again.code == 0, again.err
    result = terminals.as_json.json[-1]["result"]
    for text in (
        "first: completed; task digits, tuner optuna; 2 of 2 trials, 4 rounds",
        "Best hyper-parameters (trial",
        "lr  ",
        "Final model on held-out data:",
        f"accuracy           {result['metrics']['accuracy']:.4f}",
        str(terminals.folder / "fedstep.db"),
        result["model_path"],
        result["picture_path"],
    ):
        assert text in again.out
    assert again.err == ""


def test_a_study_is_shown_with_whose_training_it_took(terminals: Terminals) -> None:
    shown = terminals.fedstep("study", "show", "first")
    assert "No client was left out: training was taken from each of 2 clients 4 times." in shown.out
    (study,) = terminals.fedstep("study", "show", "first", "--json").json
    assert study["state"] == "STUDY_STATE_COMPLETED"
    assert study["participation"]["left_out"]["clients"] == 0
    assert study["participation"]["others"]["taken"] == 4.0


def test_the_same_name_with_other_settings_is_refused(terminals: Terminals, tmp_path: Path) -> None:
    other = digits(tmp_path / "other.toml", name="first", seed=99)
    refused = terminals.fedstep("study", "run", other)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "A study named first exists with other settings (completed)" in refused.err


def test_a_detached_study_is_left_to_itself_and_can_be_watched(terminals: Terminals, tmp_path: Path) -> None:
    file = digits(tmp_path / "second.toml", name="second", seed=5)
    detached = terminals.fedstep("study", "run", file, "--detach")
    assert (detached.code, detached.out) == (0, f"Study second is under way at {terminals.address}.\n")
    watched = terminals.fedstep("study", "watch", "second", "--json")
    assert watched.code == 0
    *events, study = watched.json
    assert [event["kind"] for event in events][-1] == "study_completed"
    assert study["state"] == "STUDY_STATE_COMPLETED"
    middle = int(events[3]["number"])
    rest = terminals.fedstep("study", "watch", "second", "--json", "--after", str(middle))
    assert [event["number"] for event in rest.json[:-1]] == [event["number"] for event in events[4:]]


def test_ctrl_c_leaves_the_study_and_says_how_to_watch_it(terminals: Terminals, tmp_path: Path) -> None:
    file = digits(tmp_path / "third.toml", name="third", budget={"trials": 1000, "rounds_per_trial": 10})
    watching = terminals.programs.start("study", "run", file, "--coordinator", terminals.address)
    watching.until(lambda p: p.says("round 0"), "a round is shown")
    watching.send(signal.SIGINT)
    assert watching.wait() == 130
    assert "fedstep study watch third" in watching.err
    assert "fedstep study stop third" in watching.err
    assert "Traceback" not in watching.err
    assert terminals.fedstep("study", "show", "third", "--json").json[0]["state"] == "STUDY_STATE_RUNNING"
    assert terminals.fedstep("study", "stop", "third").code == 0
    assert terminals.fedstep("study", "watch", "third").code == 0


def test_studies_trials_steps_and_clients_are_listed(terminals: Terminals) -> None:
    listed = terminals.fedstep("study", "list", "--json").json
    assert "first" in [study["spec"]["name"] for study in listed]
    row = next(line for line in terminals.fedstep("study", "list").out.splitlines() if line.startswith("first"))
    assert row.split()[:5] == ["first", "completed", "digits", "optuna", "2/2"]
    (shown,) = terminals.fedstep("study", "show", "first", "--json").json
    del shown["participation"]
    assert shown == terminals.as_json.json[-1]
    trials = terminals.fedstep("study", "trials", "first", "--json").json
    assert [trial["rounds"] for trial in trials] == [2, 2]
    assert [len(trial["values"]) for trial in trials] == [2, 2]
    assert terminals.fedstep("study", "trials", "first").out.splitlines()[1].split()[:3] == ["0", "completed", "2"]
    steps = terminals.fedstep("study", "steps", "first", "--trial", "1", "--client", "c2").out.splitlines()
    assert steps[0] == "trial,round,client,attempt,step,loss,samples,step_ms"
    assert {line.split(",")[0:3:2][1] for line in steps[1:]} == {"c2"}
    assert {line.split(",")[1] for line in steps[1:]} == {"0", "1"}
    assert all(float(line.split(",")[5]) > 0 and float(line.split(",")[7]) > 0 for line in steps[1:])
    clients = clients_of(terminals.address)
    assert set(clients) == {"c1", "c2"}
    assert all(int(c["updates_accepted"]) >= 4 and int(c["faults"]) == 0 for c in clients.values())
    table = terminals.fedstep("fleet", "list").out.splitlines()
    assert table[0].split() == [
        *(
            "client",
            "state",
            "task",
            "device",
            "train",
            "validation",
            "updates",
            "faults",
            "step",
            "down,",
            "up",
            "note",
        )
    ]
    assert [line.split()[0] for line in table[1:]] == ["c1", "c2"]
    assert all(re.search(r"[\d.]+ ms of \d+ +.*MB/s", line) for line in table[1:])
    assert all(float(c["pace"]["step_ms"]) > 0 for c in clients.values())


def test_help_explains_every_command() -> None:
    text = fedstep("--help").out
    for command in ("coordinator", "client", "study", "fleet", "demo"):
        assert f"  {command} " in text
        assert "Usage: fedstep" in fedstep(command, "--help").out


def test_a_study_may_be_run_before_its_coordinator_is_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    file = digits(tmp_path / "study.toml", name="early")
    with Programs(tmp_path / "logs") as programs:
        run = programs.start("study", "run", file, "--coordinator", f"127.0.0.1:{port}", "--detach")
        run.until(lambda p: "Nobody answers" in p.err, "it waits")
        programs.coordinator(tmp_path / "data", port=port)
        assert run.wait() == 0
        assert "Study early is under way" in run.out
