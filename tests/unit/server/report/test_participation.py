"""Who is said to be left out, and what that means on their data."""

from dataclasses import replace

import pytest

from fedstep.server.report.participation import left_out, participation, shares_of
from fedstep.server.storage.base import AssignmentRecord


def trained(round: int, client: str, status: str = "accepted") -> AssignmentRecord:
    return AssignmentRecord(f"t{round}{client}{status}", 0, round, 1, client, "train", status)


def measured(round: int, client: str, loss: float) -> AssignmentRecord:
    return AssignmentRecord(f"e{round}{client}", 0, round, 1, client, "evaluate", "accepted", metrics={"loss": loss})


def federation(late: str = "late") -> list[AssignmentRecord]:
    """Two clients train every round, one is late but for once, one is never asked; the slow ones' data is harder."""
    records = []
    for round in range(8):
        records += [trained(round, "a"), trained(round, "b"), trained(round, "c", late if round else "accepted")]
        records += [measured(round, name, loss) for name, loss in (("a", 1.0), ("b", 1.0), ("c", 2.0), ("d", 2.0))]
    return records


def test_how_often_each_was_asked_and_taken() -> None:
    a, _, c, d = shares_of(federation(), ["a", "b", "c", "d"])
    assert (a.asked, a.taken, a.missed) == (8, 8, 0)
    assert (c.asked, c.taken, c.missed) == (8, 1, 7)
    assert (d.asked, d.taken, d.relative_loss) == (0, 0, pytest.approx(2 / 1.5))


def test_those_left_out_are_named_with_the_loss_on_their_data() -> None:
    shares = shares_of(federation(), ["a", "b", "c", "d"])
    assert [share.client for share in left_out(shares)] == ["d", "c"]
    event = participation(shares)
    assert event.text == (
        "2 of 4 clients trained less than half as much as the median client (4.5 whole trainings): d, c. "
        "The loss on their data is 2.00 times that on the others'."
    )
    assert event.details["never_trained"] == 1
    assert event.details["left_out"]["c"] == {"asked": 8, "taken": 1, "missed": 7, "work": 1.0, "relative_loss": 1.3333}


def test_nobody_is_left_out_where_all_train_alike() -> None:
    event = participation(shares_of([trained(round, name) for round in range(3) for name in "ab"], "ab"))
    assert event.text == "No client was left out: training was taken from each of 2 clients 3 times."
    assert event.details["left_out"] == {}
    alone = participation(shares_of([trained(round, "a") for round in range(3)], "a"))
    assert alone.text == "No client was left out: training was taken from the one client 3 times."


def test_those_who_never_train_are_left_out_however_many_they_are() -> None:
    shares = shares_of([trained(round, "a") for round in range(9)], "abc")
    assert participation(shares).text == "2 of 3 clients never trained: b, c."
    assert left_out(shares_of([], "abc")) == []


def test_a_measurement_by_nobody_else_says_nothing() -> None:
    only = [trained(round, "a") for round in range(4)] + [trained(9, "b", "lost")]
    assert "relative_loss" not in participation(shares_of(only, ["a", "b"])).details


@pytest.mark.parametrize("late", ["late", "goes_on"])
def test_a_late_update_that_was_taken_was_not_missed(late: str) -> None:
    """One of the seven that came late was taken."""
    _, _, c, _ = shares_of(
        federation(late), ["a", "b", "c", "d"], {(0, 3, "c"): 0.25, (1, 4, "c"): 1.0, (0, 3, "a"): 1.0}
    )
    assert (c.asked, c.taken, c.missed, c.work) == (8, 2, 6, 1.25)


def test_whose_trainings_are_taken_with_few_of_their_steps_is_left_out() -> None:
    few = [
        replace(trained(round, "c"), metrics={"loss": 1.0, "steps": 1.0, "part": 0.05}, status="accepted")
        for round in range(8)
    ]
    shares = shares_of([*(trained(round, name) for round in range(8) for name in "ab"), *few], "abc")
    assert [(share.client, share.taken, share.work) for share in left_out(shares)] == [("c", 8, pytest.approx(0.4))]
    assert participation(shares).text == (
        "1 of 3 clients trained less than half as much as the median client (8 whole trainings): c."
    )


def test_a_study_without_clients_has_a_sentence_too() -> None:
    assert participation([]).text.startswith("No client was left out")
