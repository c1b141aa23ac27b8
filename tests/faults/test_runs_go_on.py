"""Programs that step runs, and coordinators, that are killed: real processes."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from e2e.processes import Program, Programs, connected, environment, fedstep
from e2e.studies import write_study
from e2e.waiting import eventually
from faults.test_coordinator_killed import again, ask, sqlite_in

from fedstep.api.runs import Runs, RunState

LR = {"lr": 0.1}

STEPS = """
import sys
from fedstep.api.runs import Runs
with Runs(sys.argv[1], "s") as runs:
    runs.open("a")
    while True:
        print(runs.step("a", {"lr": 0.1}).step, flush=True)
"""


def start(programs: Programs, folder: Path, close_after: str) -> tuple[Program, str, Program]:
    """A coordinator, a client on real data, and a study that waits to be stepped."""
    coordinator, address = programs.coordinator(folder / "data")
    client = programs.client(address, "c1", "--partition", "1/8")
    connected(client)
    file = write_study(
        folder / "study.toml",
        task="digits",
        tuner={"name": "outside", "close_after": close_after},
        round={"min_clients": 1, "wait_for_clients": "90s"},
        budget={"rounds": 1000},
    )
    detached = fedstep("study", "run", file, "--coordinator", address, "--detach")
    assert detached.code == 0, detached.err
    return coordinator, address, client


@pytest.mark.slow
def test_a_killed_program_leaves_its_runs_and_they_are_closed_after_the_stated_time(
    programs: Programs, tmp_path: Path
) -> None:
    coordinator, address, _ = start(programs, tmp_path, "4s")
    program = subprocess.Popen([sys.executable, "-c", STEPS, address], stdout=subprocess.PIPE, env=environment())
    try:
        assert program.stdout is not None
        assert [int(program.stdout.readline()) for _ in range(2)] == [1, 2]
    finally:
        program.kill()
        program.wait()
        program.stdout and program.stdout.close()
    with Runs(address, "s") as runs:
        eventually(lambda: runs.get("a").state is RunState.IDLE, "the step under way came to its end")
        before = runs.get("a")
        assert before.step >= 2
        after = runs.step("a", LR)  # whoever finds the run goes on with it
        assert (after.step, after.rounds_behind) == (before.next_step, before.next_step)
    coordinator.kill()
    again(programs, tmp_path, address)
    with Runs(address, "s") as runs:
        assert runs.get("a").step == after.step
        eventually(lambda: runs.get("a").state is RunState.CLOSED, "the study is over")
    shown = fedstep("study", "show", "s", "--coordinator", address, "--json").json[-1]
    assert shown["state"] == "STUDY_STATE_COMPLETED"
    assert Path(shown["result"]["model_path"]).is_file()


@pytest.mark.slow
def test_a_coordinator_killed_in_the_middle_of_a_step_goes_on_with_it_and_answers_once(
    programs: Programs, tmp_path: Path
) -> None:
    coordinator, address, client = start(programs, tmp_path, "10m")
    database = sqlite_in(tmp_path)

    def rounds() -> list[tuple[Any, ...]]:
        return ask(database, "SELECT trial, round FROM fedstep_rounds ORDER BY 1, 2")

    answers = []
    with Runs(address, "s") as runs:
        runs.open("a")
        asking = threading.Thread(target=lambda: answers.append(runs.step("a", LR, rounds=30, step=1)))
        asking.start()
        eventually(lambda: len(rounds()) >= 2, "the step is under way")
        coordinator.kill()
        assert len(rounds()) < 30
        assert not answers
        client.send(signal.SIGSTOP)  # so that it is still under way when it is looked at
        again(programs, tmp_path, address)
        assert runs.get("a").state is RunState.STEPPING
        client.send(signal.SIGCONT)
        asking.join(60)
        assert rounds() == [(0, number) for number in range(30)]
        (answer,) = answers
        assert (answer.step, answer.trial, answer.rounds, answer.failed) == (1, 0, 30, "")
        assert runs.step("a", LR, rounds=30, step=1) == answer
        assert len(rounds()) == 30
