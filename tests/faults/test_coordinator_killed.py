"""A coordinator that is killed or stopped in mid-study, and started again on the same folder and port."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.processes import Program, Programs, connected, fedstep
from e2e.studies import write_study
from e2e.waiting import eventually
from sqlalchemy import NullPool, create_engine, text

TRIALS, ROUNDS = 3, 10
BUFFERED = {"mode": "buffered", "cohort_size": 2}


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of the coordinator's database."""
    return sqlite_in(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_database"))


def sqlite_in(folder: Path) -> str:
    """Where a coordinator keeps it unless it is told otherwise."""
    return f"sqlite:///{folder / 'data' / 'fedstep.db'}"


def ask(database: str, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    """What a person who opens the study database reads there."""
    engine = create_engine(database, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


def start_study(programs: Programs, folder: Path, database: str, **policy: Any) -> tuple[Program, str, list[Program]]:
    """A coordinator, two clients and a study that is under way."""
    coordinator, address = programs.coordinator(folder / "data", "--database", database)
    clients = [programs.client(address, f"c{i}", "--partition", f"{i}/8") for i in (1, 2)]
    file = write_study(
        folder / "study.toml",
        task="digits",
        tuner={"name": "optuna", "sampler": "TPESampler", "sampler_options": {"n_startup_trials": 2}},
        aggregator={"name": "fedadam"},
        round={"min_clients": 2, "wait_for_clients": "90s", **policy},
        budget={"trials": TRIALS, "rounds_per_trial": ROUNDS, "final_rounds": 1},
    )
    connected(*clients)
    detached = fedstep("study", "run", file, "--coordinator", address, "--detach")
    assert detached.code == 0, detached.err
    return coordinator, address, clients


def again(programs: Programs, folder: Path, address: str, database: str = "") -> tuple[Program, str]:
    named = ["--database", database] if database else []
    return programs.coordinator(folder / "data", *named, port=int(address.rpartition(":")[2]))


@contextmanager
def frozen(client: Program) -> Iterator[None]:
    """A client that does nothing meanwhile."""
    client.send(signal.SIGSTOP)
    try:
        yield
    finally:
        client.send(signal.SIGCONT)


def kinds(watching: Program) -> list[str]:
    """Of the events that the watcher has seen."""
    return [event["kind"] for event in watching.json if "kind" in event]


def committed(database: str) -> list[tuple[Any, ...]]:
    return ask(database, "SELECT trial, round FROM fedstep_rounds ORDER BY trial, round")


def assert_whole(database: str, watching: Program) -> None:
    """Nothing was lost and nothing done twice: in the database, in Optuna's, and for whoever watched."""
    best = ask(database, "SELECT trial FROM fedstep_rounds WHERE round = :last", last=ROUNDS)
    assert len(best) == 1  # the final round, on the best trial
    every = sorted([(trial, round_) for trial in range(TRIALS) for round_ in range(ROUNDS)] + [(best[0][0], ROUNDS)])
    assert committed(database) == every
    *events, study = watching.json
    told = Counter(
        (int(event["details"]["trial"]), int(event["details"]["round"]))
        for event in events
        if event["kind"] == "round_committed"
    )
    assert told == Counter(every)
    numbers = [int(event["number"]) for event in events]
    assert numbers == [number for (number,) in ask(database, "SELECT number FROM fedstep_events ORDER BY 1")]
    assert study["state"] == "STUDY_STATE_COMPLETED"
    states = ask(database, "SELECT number, state FROM trials ORDER BY number")
    assert [str(state) for _, state in states].count("COMPLETE") == TRIALS
    # Asked of Optuna just when a coordinator ended, and never begun: it is forgotten, and asked anew.
    assert {str(state) for _, state in states} <= {"COMPLETE", "FAIL"}
    begun = "SELECT count(*) FROM trial_intermediate_values JOIN trials USING (trial_id) WHERE state = 'FAIL'"
    assert ask(database, begun) == [(0,)]
    assert Path(study["result"]["model_path"]).is_file()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("database", "policy"),
    [
        pytest.param("sqlite", BUFFERED, id="sqlite, buffered"),
        pytest.param("postgres", {}, marks=pytest.mark.postgres, id="PostgreSQL"),
        pytest.param("sqlite", {}, marks=pytest.mark.exhaustive, id="sqlite"),
        pytest.param(
            "postgres", BUFFERED, marks=[pytest.mark.postgres, pytest.mark.exhaustive], id="PostgreSQL, buffered"
        ),
    ],
    indirect=["database"],
)
def test_a_killed_coordinator_goes_on_and_nobody_notices_but_the_clock(
    programs: Programs, tmp_path: Path, database: str, policy: dict[str, Any]
) -> None:
    coordinator, address, clients = start_study(programs, tmp_path, database, **policy)
    watching = programs.start("study", "watch", "s", "--coordinator", address, "--json")
    watching.until(lambda p: p.json, "the watcher sees the study")
    eventually(lambda: len(committed(database)) >= ROUNDS + 2, "the second trial is under way")
    coordinator.kill()
    before = committed(database)
    eventually(lambda: "Lost the coordinator" in watching.err, "the watcher says that it waits")
    with frozen(clients[0]):  # so that the study waits for the watcher
        coordinator, _ = again(programs, tmp_path, address, database)
        assert coordinator.json[0]["resumed"] == ["s"]
        watching.until(lambda p: kinds(p).count("study_resumed") == 1, "the watcher is back")
    eventually(lambda: len(committed(database)) >= 2 * ROUNDS + 2, "the third trial is under way")
    coordinator.kill()  # once more, elsewhere in the study
    again(programs, tmp_path, address, database)
    assert watching.wait(120) == 0, watching.err
    assert_whole(database, watching)
    assert set(before) <= set(committed(database))
    assert kinds(watching).count("study_resumed") == 2
    assert watching.err.count("Lost the coordinator") == 2
    for client in clients:
        assert not client.ended
        assert client.out.count("lost touch") == 2  # said once each time
        assert client.out.count("connected again") == 2


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_stopped_coordinator_says_how_to_go_on(programs: Programs, tmp_path: Path) -> None:
    """Ctrl-C first, then what an init system sends; each is a pause and no more."""
    database = sqlite_in(tmp_path)
    coordinator, address, clients = start_study(programs, tmp_path, database)
    watching = programs.start("study", "watch", "s", "--coordinator", address, "--json")
    watching.until(lambda p: p.json, "the watcher sees the study")
    eventually(lambda: len(committed(database)) >= 2, "a few rounds are done")
    coordinator.send(signal.SIGINT)
    assert coordinator.wait() == 0
    assert coordinator.json[-1]["interrupted"] == ["s"]
    assert ask(database, "SELECT state FROM fedstep_studies") == [("interrupted",)]
    states = ask(database, "SELECT DISTINCT state FROM fedstep_trials")
    assert set(states) <= {("running",), ("completed",)}
    port = int(address.rpartition(":")[2])
    with frozen(clients[0]):
        coordinator = programs.start("coordinator", "--port", str(port), "--data-dir", tmp_path / "data")
        coordinator.until(lambda p: p.says("going on with study s"), "it goes on")
        watching.until(lambda p: kinds(p).count("study_resumed") == 1, "the watcher is back")
    done = len(committed(database))
    eventually(lambda: len(committed(database)) >= done + 2, "a few more rounds are done")
    coordinator.send(signal.SIGTERM)
    assert coordinator.wait() == 0
    assert "study s is interrupted and committed; to go on: fedstep coordinator --port" in coordinator.out
    assert str(tmp_path / "data") in coordinator.out
    assert coordinator.err == ""
    again(programs, tmp_path, address)
    assert watching.wait(120) == 0, watching.err
    assert_whole(database, watching)
    assert (kinds(watching).count("study_interrupted"), kinds(watching).count("study_resumed")) == (2, 2)
    assert watching.err.count("Lost the coordinator") == 2
    for client in clients:
        assert not client.ended
        assert client.out.count("is going away") == 2


def test_a_client_told_to_stop_leaves_at_once(programs: Programs, tmp_path: Path) -> None:
    _, address = programs.coordinator(tmp_path / "data")
    clients = [programs.client(address, f"c{i}", "--partition", f"{i}/8") for i in (1, 2)]
    connected(*clients)
    clients[0].send(signal.SIGINT)
    clients[1].send(signal.SIGTERM)
    assert [client.wait() for client in clients] == [130, 0]
    assert all(client.err == "" and "stopped" in client.out for client in clients)


def test_a_client_waits_for_its_coordinator(programs: Programs, tmp_path: Path) -> None:
    coordinator, address = programs.coordinator(tmp_path / "data")
    coordinator.kill()
    client = programs.client(address, "early", "--partition", "1/8")
    client.until(lambda p: p.says(f"no coordinator answers at {address} yet"), "it says that it waits")
    again(programs, tmp_path, address)
    connected(client)
    assert client.out.count("no coordinator answers") == 1
