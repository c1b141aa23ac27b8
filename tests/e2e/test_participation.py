"""Whose training a study took, asked of a coordinator."""

from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.studies import spec
from unit.server.report.test_participation import federation

from fedstep.api.aio import connect
from fedstep.common.errors import NotFoundError
from fedstep.server.api import convert
from fedstep.server.cli.participation import print_participation
from fedstep.server.report.participation import Share, participation, shares_of
from fedstep.server.storage.base import Change, NewEvent
from fedstep.v1 import study_pb2

LATE = NewEvent("late_update_taken", "", {"client": "c", "trial": 0, "round": 4, "made_in": 3})


async def asked(folder: Path, ended: bool) -> study_pb2.Participation:
    """Of a study that another life of the coordinator has run."""
    shares = shares_of(federation(), "abcde")  # e was there, and neither trained nor measured
    events = [LATE, *([participation(shares)] if ended else [])]
    async with inside(folder) as host, connect(host.address) as remote:
        store, storage = host.coordinator.parts.store, host.coordinator.parts.executors.storage
        await storage.run(store.create_study, spec())
        await storage.run(store.commit, "s", Change(assignments=federation(), events=events))
        with pytest.raises(NotFoundError, match="no study named 'other'"):
            await remote.participation("other")
        return await remote.participation("s")


async def test_those_left_out_are_told_beside_the_others(tmp_path: Path) -> None:
    told = await asked(tmp_path, ended=False)
    assert (told.left_out.clients, told.others.clients) == (2, 2)
    assert (told.left_out.asked, told.left_out.taken, told.left_out.missed) == (4, 1, 3)  # one of c's was taken late
    assert (told.others.asked, told.others.taken, told.others.missed) == (8, 8, 0)
    assert told.left_out.relative_loss == pytest.approx(2 / 1.5)
    assert told.others.relative_loss == pytest.approx(1 / 1.5)
    assert [(part.client_name, part.asked, part.taken) for part in told.clients_left_out] == [("d", 0, 0), ("c", 8, 2)]
    parts = [(part.client_name, part.asked, part.taken) for part in told.clients]
    assert parts == [("a", 8, 8), ("b", 8, 8), ("c", 8, 2), ("d", 0, 0)]


async def test_after_its_end_those_count_as_well_who_were_there_and_never_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await asked(tmp_path, ended=True)
    e = next(part for part in told.clients_left_out if part.client_name == "e")
    assert not e.HasField("relative_loss")
    print_participation(told)
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "",
        "Whose training was taken, in the mean a client",
        "clients asked taken missed of their steps loss on their data",
        "little or none 2 0.0 0.0 0.0 – 1.33 × the mean",
        "the others 3 8.0 6.0 2.0 100% 0.89 × the mean",
        "little or none: d (0 of 0), e (0 of 0)",
    ]


def test_where_they_are_very_many_only_those_left_out_are_told_one_by_one() -> None:
    shares = [Share(f"c{number}", 2, 2 * (number > 0)) for number in range(convert.MOST_CLIENTS + 1)]
    assert len(convert.participation(shares[:-1]).clients) == convert.MOST_CLIENTS
    told = convert.participation(shares)
    assert not told.clients
    assert [part.client_name for part in told.clients_left_out] == ["c0"]


def test_nothing_is_told_before_any_training_and_a_sentence_where_nobody_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_participation(study_pb2.Participation(text="nothing"))
    assert capsys.readouterr().out == ""
    others = study_pb2.ClientGroup(clients=2, asked=3, taken=3)
    print_participation(study_pb2.Participation(text="No client was left out.", others=others))
    assert capsys.readouterr().out == "\nNo client was left out.\n"


async def test_many_are_not_all_named(capsys: pytest.CaptureFixture[str]) -> None:
    group = study_pb2.ClientGroup(clients=300, asked=1)
    named = [study_pb2.ClientPart(client_name=f"c{number}", asked=1) for number in range(200)]
    print_participation(study_pb2.Participation(left_out=group, clients_left_out=named))
    assert capsys.readouterr().out.splitlines()[-1].endswith("c4 (0 of 1) and 295 more")
