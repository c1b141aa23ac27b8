"""A task of one's own: one file, given to both sides."""

from pathlib import Path

import pytest
from e2e.processes import ROOT, Programs, connected, fedstep
from e2e.studies import write_study

MY_TASK = ROOT / "examples" / "my_task.py"
BROKEN = {
    "no_such_name.py": ("import torch\n\ntask = Missing()\n", "line 3"),
    "half_a_line.py": ("class Mine(\n", "line 1"),
    "empty.py": ("", "There is no task in"),
    "not_a_task.py": ("task = 5\n", "is a int"),
    "no_model.py": (
        "from fedstep.client.tasks.digits import Digits\n\n\nclass Mine(Digits):\n    name = 'mine'\n\n"
        "    def build_model(self, hyperparameters):\n        raise ValueError('hidden must be even')\n",
        "The task mine builds no model: ValueError: hidden must be even (no_model.py, line 8).",
    ),
}


def test_a_study_of_ones_own_task_runs_to_its_end(programs: Programs, tmp_path: Path) -> None:
    _, address = programs.coordinator(tmp_path / "data", "--task", MY_TASK)
    clients = [programs.client(address, f"h{i}", "--partition", f"{i}/2", task=MY_TASK) for i in (1, 2)]
    file = write_study(
        tmp_path / "study.toml",
        task="tumours",
        space={
            "lr": {"type": "float", "low": 0.05, "high": 0.5, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.3},
        },
        round={"min_clients": 2},
        budget={"trials": 2, "rounds_per_trial": 3},
    )
    connected(*clients)
    ran = fedstep("study", "run", file, "--coordinator", address, "--json")
    assert ran.code == 0, ran.err
    study = ran.json[-1]
    assert "dropout" in study["best_trial"]["hyperparameters"]
    assert study["result"]["metrics"]["accuracy"] > 0.85


@pytest.mark.parametrize(("command", "name"), [*(("client", name) for name in BROKEN), ("coordinator", "empty.py")])
def test_a_broken_task_file_is_one_sentence(tmp_path: Path, name: str, command: str) -> None:
    text, said = BROKEN[name]
    file = tmp_path / name
    file.write_text(text)
    port: list[str | Path] = [] if command == "client" else ["--port", "0", "--data-dir", tmp_path / "data"]
    ran = fedstep(command, "--task", file, *port)
    assert ran.code == 2
    assert ran.err.count("\n") == 1, ran.err
    assert name in ran.err
    assert said in ran.err


def test_a_study_of_a_task_that_the_coordinator_was_not_given_waits_for_it(programs: Programs, tmp_path: Path) -> None:
    first, address = programs.coordinator(tmp_path / "data", "--task", MY_TASK)
    file = write_study(tmp_path / "study.toml", task="tumours", round={"wait_for_clients": "1h"})
    assert fedstep("study", "run", file, "--coordinator", address, "--detach").code == 0
    first.kill()
    _, address = programs.coordinator(tmp_path / "data")
    shown = fedstep("study", "show", "s", "--coordinator", address, "--json").json[0]
    assert shown["state"] == "STUDY_STATE_INTERRUPTED"
    assert "no task tumours" in shown["message"]
    watched = fedstep("study", "watch", "s", "--coordinator", address)
    assert watched.code == 1
    assert "--task" in watched.out
    assert fedstep("study", "stop", "s", "--coordinator", address).out == "Study s is stopped.\n"
