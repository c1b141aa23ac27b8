"""`fedstep demo`, as a newcomer runs it."""

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from e2e.inside import query
from e2e.processes import ROOT, Program, Programs, fedstep, gone
from e2e.studies import write_study
from e2e.waiting import eventually

from fedstep.server.cli.processes import Processes

CLIENTS_AND_COORDINATOR = 9

pytestmark = [pytest.mark.slow, pytest.mark.timeout(330)]


def short_study(folder: Path, rounds: int) -> Path:
    """A folder whose demo is a smaller study: the file is the user's to change."""
    folder.mkdir()
    write_study(
        folder / "study.toml",
        name="demo",
        task="digits",
        tuner={"name": "optuna"},
        round={"min_clients": 8, "cohort_size": 2},
        evaluation={"cohort_size": 2},
        budget={"trials": 2, "rounds_per_trial": rounds},
    )
    return folder


def all_started(demo: Program) -> None:
    eventually(lambda: len(demo.descendants()) >= CLIENTS_AND_COORDINATOR or demo.ended, "nine processes run")
    assert not demo.ended, demo.err


def test_the_demo_ends_by_itself_with_a_good_model_and_leaves_nothing_running(
    programs: Programs, tmp_path: Path
) -> None:
    demo = programs.start("demo", "--data-dir", tmp_path / "first", "--json")
    all_started(demo)
    children = demo.descendants()
    beside = programs.start("demo", "--data-dir", short_study(tmp_path / "second", rounds=2))
    assert beside.wait(300) == 0, beside.err
    assert demo.wait(300) == 0, demo.err
    assert gone(children) == []
    study = demo.json[-1]
    assert study["state"] == "STUDY_STATE_COMPLETED"
    assert study["result"]["held_out"] is True
    assert study["result"]["metrics"]["accuracy"] >= 0.9
    assert Path(study["result"]["model_path"]).is_file()
    assert Path(study["result"]["picture_path"]).is_file()
    assert Path(study["result"]["report_path"]).is_file()
    assert study["best_trial"]["hyperparameters"].keys() >= {"lr", "momentum", "batch_size"}
    ours = query(tmp_path / "first", "SELECT number, state FROM fedstep_trials ORDER BY number")
    optunas = query(tmp_path / "first", "SELECT number, state FROM trials ORDER BY number")
    assert len(ours) == study["spec"]["budget"]["trials"]
    words = {"completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert [(number, words[state]) for number, state in ours] == optunas
    for text in ("2 of 2 trials, 4 rounds", "accuracy", "study database", "The whole demo took"):
        assert text in beside.out


def test_a_study_of_ones_own_with_its_task_and_data_takes_the_demos_place(tmp_path: Path) -> None:
    told = "        assert client.options['hospital'] == 'north'\n        index, count ="
    task = tmp_path / "own.py"
    task.write_text((ROOT / "examples" / "my_task.py").read_text().replace("        index, count =", told))
    study = write_study(
        tmp_path / "study.toml",
        task="tumours",
        round={"min_clients": 3, "cohort_size": 2},
        budget={"trials": 1, "rounds_per_trial": 2},
    )
    federation = ("--clients", "3", "--task", task, "--option", "hospital=north")
    ran = fedstep("demo", study, *federation, "--data-dir", tmp_path / "ours", "--json", timeout_s=200)
    assert ran.code == 0, ran.err
    assert ran.json[-1]["state"] == "STUDY_STATE_COMPLETED"
    assert ran.json[-1]["spec"]["name"] == "s"
    assert len(query(tmp_path / "ours", "SELECT name FROM fedstep_clients")) == 3


def test_clients_that_end_end_it_with_what_they_said(tmp_path: Path) -> None:
    task = tmp_path / "own.py"
    text = (ROOT / "examples" / "my_task.py").read_text()
    task.write_text(text.replace("        index, count =", "        raise KeyError('age')\n        index, count ="))
    study = write_study(tmp_path / "study.toml", task="tumours", round={"min_clients": 2})
    ran = fedstep("demo", study, "--clients", "2", "--task", task, "--data-dir", tmp_path / "ours", timeout_s=60)
    assert ran.code != 0
    # One of them may end before the other.
    which = "(2 clients ended: client-1|1 client ended: client-[12])"
    assert re.search(f"{which}: The task tumours cannot load its data: KeyError: 'age'", ran.err), ran.err
    assert "Traceback" not in ran.err + ran.out


def test_fewer_clients_than_the_study_waits_for_are_refused(tmp_path: Path) -> None:
    ran = fedstep("demo", "--clients", "7", "--data-dir", tmp_path / "demo")
    assert ran.code == 2
    assert "--clients 7 is fewer than the 8" in ran.err


def test_an_interrupted_demo_leaves_nothing_running_and_goes_on_when_asked(programs: Programs, tmp_path: Path) -> None:
    folder = short_study(tmp_path / "demo", rounds=15)
    demo = programs.start("demo", "--data-dir", folder)
    demo.until(lambda p: p.says("round 3"), "a few rounds are done", timeout_s=120)
    children = demo.descendants()
    assert len(children) == CLIENTS_AND_COORDINATOR
    demo.send(signal.SIGINT)
    assert demo.wait() == 130
    assert gone(children) == []
    assert f"To go on: fedstep demo --data-dir {folder}" in demo.err
    assert "Traceback" not in demo.err + demo.out
    before = query(folder, "SELECT trial, round, model_sha256 FROM fedstep_rounds")
    assert before
    rest = fedstep("demo", "--data-dir", folder, "--json", timeout_s=200)
    assert rest.code == 0, rest.err
    after = query(folder, "SELECT trial, round, model_sha256 FROM fedstep_rounds")
    assert set(before) <= set(after)
    assert Counter((trial, round_) for trial, round_, _ in after) == {(t, r): 1 for t in range(2) for r in range(15)}
    assert "study_resumed" in [event.get("kind") for event in rest.json]


def test_a_child_that_is_just_being_started_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes after the child has begun to run, and before anything can remember it."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), Processes(tmp_path) as children:
        children.start_client("c", [])
    assert started[0].poll() is not None


def test_a_demo_whose_terminal_is_closed_leaves_nothing_running(programs: Programs, tmp_path: Path) -> None:
    demo = programs.start("demo", "--data-dir", tmp_path / "demo")
    all_started(demo)
    children = demo.descendants()
    demo.send(signal.SIGHUP)
    assert demo.wait() == 130
    assert gone(children) == []
