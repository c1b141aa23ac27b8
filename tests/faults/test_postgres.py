"""A PostgreSQL that goes away in the middle of a study."""

import signal
from pathlib import Path

import pytest
from e2e.inside import Inside, inside
from e2e.studies import spec
from e2e.tiny import tiny_agent
from e2e.waiting import until, until_true

from contract.postgres import PASSWORD, PostgresServer
from fedstep.common.spec import StudySpec
from fedstep.server.coordination import studies
from fedstep.server.storage.base import StudyState

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

TRIALS, ROUNDS = 3, 4


def study() -> StudySpec:
    return spec(
        tuner={"name": "optuna", "sampler": "TPESampler", "sampler_options": {"n_startup_trials": 1}},
        budget={"trials": TRIALS, "rounds_per_trial": ROUNDS},
    )


async def some_rounds(host: Inside) -> None:
    async def two() -> bool:
        return len(await host.rounds("s")) >= 2

    await until_true(two, "a few rounds are committed")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
async def test_a_study_waits_for_its_database_and_goes_on_by_itself(
    tmp_path: Path, own_postgres_server: PostgresServer, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_postgres_server
    server.execute("CREATE DATABASE study")
    async with inside(tmp_path, database=server.url("study")) as host, tiny_agent(host.address, "ann"):
        await host.create(study())
        await some_rounds(host)
        server.stop(how)
        await until(lambda: "the end of study s cannot be committed yet" in caplog.text, "it says that it waits")
        server.start()
        record = await host.until_over("s")
        assert record.state is StudyState.COMPLETED
        rounds = [(done.trial, done.round) for done in await host.rounds("s")]
        interrupted = await host.events("s", "study_interrupted")
        assert await host.events("s", "study_resumed")
    assert rounds == [(trial, number) for trial in range(TRIALS) for number in range(ROUNDS)]
    assert interrupted
    for event in interrupted:
        assert event.text.endswith("The study goes on by itself.")
    assert PASSWORD not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_study_whose_database_fails_it_again_and_again_is_left_to_a_person(
    tmp_path: Path, own_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "TAKEN_UP_AFTER_S", (0.0, 0.0))
    server = own_postgres_server
    server.execute("CREATE DATABASE study")
    async with inside(tmp_path, database=server.url("study")) as host, tiny_agent(host.address, "ann"):
        # What fedstep commits works, and Optuna's tables do not.
        await host.create(study())
        await some_rounds(host)
        _execute(server, "ALTER TABLE trials RENAME TO gone")
        record = await host.until_over("s")
        assert record.state is StudyState.INTERRUPTED
        interrupted = await host.events("s", "study_interrupted")
        by_itself = [event.text.endswith("The study goes on by itself.") for event in interrupted]
        assert by_itself == [True, True, True, False]  # before the first one rounds were committed
        assert record.message.endswith("Then run the same study file again to go on.")
        _execute(server, "ALTER TABLE gone RENAME TO trials")
        await host.create(study())
        assert (await host.until_over("s")).state is StudyState.COMPLETED


async def test_a_coordinator_without_its_database_stops_all_the_same(
    tmp_path: Path,
    own_postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fedstep.server.coordination.commits.END_RETRIES_S", (0.0,))
    server = own_postgres_server
    server.execute("CREATE DATABASE study")
    async with inside(tmp_path, database=server.url("study")) as host, tiny_agent(host.address, "ann"):
        await host.create(study())
        await some_rounds(host)
        server.stop(signal.SIGINT)
    assert "the clients could not be saved" in caplog.text
    assert "Traceback" not in caplog.text
    server.start()
    async with inside(tmp_path, database=server.url("study")) as host, tiny_agent(host.address, "ann"):
        assert (await host.until_over("s")).state is StudyState.COMPLETED


def _execute(server: PostgresServer, statement: str) -> None:
    import psycopg

    with psycopg.connect(server.url("study").replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement.encode())
