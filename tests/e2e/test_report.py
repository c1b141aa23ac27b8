"""The report of a study: written by its coordinator at its end, and by `fedstep study report` at any time."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.processes import Ran, fedstep
from e2e.studies import spec
from e2e.tiny import tiny_agent
from unit.server.report.page.stories import Page, cells, words

from fedstep.server.storage.base import StudyState

BUDGET = {"trials": 3, "rounds_per_trial": 2}


async def asked(address: str, *arguments: str | Path) -> Ran:
    """What a person reads who runs the command meanwhile."""
    return await asyncio.to_thread(fedstep, "study", *map(str, arguments), "--coordinator", address)


def is_picture(path: str) -> bool:
    return Path(path).read_bytes().startswith(b"\x89PNG")


async def test_a_coordinator_writes_it_beside_the_model_and_a_command_writes_the_same(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        for name in ("ann", "bob"):
            await clients.enter_async_context(tiny_agent(host.address, name))
        await host.create(spec(round={"min_clients": 2}, budget=BUDGET))
        record = await host.until_over("s")
        assert record.result is not None
        ran = await asked(host.address, "report", "s", "--out", tmp_path / "out", "--json")
        shown = await asked(host.address, "show", "s")
    assert ran.code == 0, ran.err
    (told,) = ran.json
    assert told["report"] == str(tmp_path / "out" / "report.html")
    assert str(tmp_path / "out" / "report" / "objective.png") in told["pictures"]
    assert all(is_picture(path) for path in told["pictures"])
    assert record.result.report_path == str(tmp_path / "s" / "report.html")
    assert record.result.report_path in shown.out
    ours, theirs = Page(Path(record.result.report_path)), Page(Path(told["report"]))
    assert ours.charts == theirs.charts
    for key in ("result", "search", "clients", "cost"):
        assert ours.see(key) == theirs.see(key)
    for section in ("result", "cost"):
        assert cells(ours.section(section)) == cells(theirs.section(section))
    assert ours.rows("hyper-parameters") == theirs.rows("hyper-parameters")
    again = {row[0]: row[1] for row in cells(theirs.section("again"))}
    assert again["model, SHA-256"] == record.result.model_sha256.hex()
    assert again["data"].startswith("2 clients, ")
    assert {"fedstep", "python", "torch", "optuna", "numpy"} <= again.keys()
    assert "not accounted for" not in words(theirs.section("cost"))


async def test_a_study_under_way_has_a_report_and_so_has_one_that_was_stopped(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        work = await clients.enter_async_context(tiny_agent(host.address, "ann"))
        work.gate.clear()
        await host.create(spec(budget=BUDGET))
        await host.until_event("s", "trial_started")
        under_way = await asked(host.address, "report", "s", "--out", tmp_path / "out")
        page = Page(tmp_path / "out" / "report.html")
        await host.stop("s")
        work.gate.set()
        assert (await host.until_over("s")).state is StudyState.STOPPED
        stopped = await asked(host.address, "report", "s", "--out", tmp_path / "out")
    assert under_way.code == 0, under_way.err
    assert f"report          {tmp_path / 'out' / 'report.html'}" in under_way.out
    assert page.see("result") == "No model has been measured yet."
    assert "The study is running" in words(page.root)
    assert stopped.code == 0, stopped.err
    assert "stopped" in words(Page(tmp_path / "out" / "report.html").root)


async def test_a_mistake_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with inside(tmp_path) as host:
        await host.create(spec(round={"wait_for_clients": "60s"}))
        unknown = await asked(host.address, "report", "t")
        nowhere = await asked(host.address, "report", "s", "--out", tmp_path / "file" / "out")
    assert (unknown.code, nowhere.code) == (2, 2)
    assert "There is no study named 't'" in unknown.err
    assert f"The report cannot be written to {tmp_path / 'file' / 'out'} (not a directory)" in nowhere.err
    assert "Traceback" not in unknown.err + nowhere.err


async def test_a_study_does_not_fail_because_its_report_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Path:
        raise ValueError("no colours")

    monkeypatch.setattr("fedstep.server.report.page.page.write_report", fails)
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        await clients.enter_async_context(tiny_agent(host.address, "ann"))
        await host.create(spec())
        record = await host.until_over("s")
    assert record.state is StudyState.COMPLETED
    assert record.result is not None
    assert record.result.report_path == ""
    assert is_picture(record.result.picture_path)
