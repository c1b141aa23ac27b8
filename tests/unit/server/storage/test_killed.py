"""A coordinator killed at any instant: what it had committed is there, whole, and the next one may start."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contract.store_kit import spec
from fedstep.server.storage.sql_store import open_store

ASSIGNMENTS = 5

# Commits rounds for ever, from the first one that is not there; says each number once it is committed.
PROGRAM = f"""
import sys
from contract.store_kit import a_round, assignment, trial
from fedstep.server.storage.base import Change, NewEvent
from fedstep.server.storage.sql_store import open_store

store = open_store(sys.argv[1])
number = len(store.rounds("s"))
while True:
    store.commit("s", Change(
        trials=[trial(0, values=(0.5,) * (number + 1))],
        round=a_round(round=number),
        assignments=[assignment(f"{{number}}-{{i}}", round=number, client=str(i)) for i in range({ASSIGNMENTS})],
        events=[NewEvent("round_committed", "A round.", {{"round": number}})],
        tuner_state={{"rounds": number + 1}},
        seconds=1.0,
    ))
    print(number, flush=True)
    number += 1
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'f.db'}"
    database: str = request.getfixturevalue("postgres_database")
    return database


def test_only_whole_changes_survive_and_the_lock_is_free(url: str) -> None:
    store = open_store(url)
    store.create_study(spec())
    store.close()
    draw = random.Random(7)
    tests = Path(__file__).parents[3]
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, cwd=tests, text=True
        ) as coordinator:
            assert coordinator.stdout is not None
            for _ in range(draw.randint(1, 30)):
                told = int(coordinator.stdout.readline())
            coordinator.send_signal(signal.SIGKILL)
            # It may have gone on between what was read and its end.
            told = max([told, *(int(line) for line in coordinator.stdout.read().split("\n")[:-1])])
        store = open_store(url)
        rounds = [record.round for record in store.rounds("s")]
        count = len(rounds)
        assert count >= told + 1
        assert rounds == list(range(count))
        assert store.trials("s")[0].rounds == count
        assert [event.details["round"] for event in store.events("s")] == rounds
        study = store.study("s")
        assert (study.tuner_state, study.seconds_spent) == ({"rounds": count}, count)
        assignments = list(store.assignments("s"))
        assert [record.round for record in assignments] == [n for n in rounds for _ in range(ASSIGNMENTS)]
        assert all(record.steps is not None and len(record.steps.loss) == 2 for record in assignments)
        store.close()
