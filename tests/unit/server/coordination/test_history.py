"""What a study knows of its clients' parts."""

import numpy as np
import pytest

from contract.store_kit import START, SetClock
from fedstep.server.coordination.fleet import Fleet, LeasePolicy
from fedstep.server.coordination.history import History, round_seen
from fedstep.server.coordination.ledger import Status
from fedstep.server.selection.base import Part, RoundSeen
from fedstep.server.storage.base import AssignmentRecord, RoundRecord
from fedstep.v1 import fleet_pb2


async def test_a_late_update_that_was_taken_is_a_training_and_no_miss() -> None:
    fleet = Fleet(SetClock(), LeasePolicy(), [])
    history = History(fleet.roll)
    for round, late in ((0, ()), (1, ("taken", "away"))):
        history.drawn((0, round, 1), ("taken", "dropped"))
        parts = [Part(name, trained=False, missed=True) for name in ("taken", "dropped", "away") if not round]
        history.observe(RoundSeen(0, round, parts, late=late))
        if not round:
            for name in ("taken", "dropped"):
                await fleet.join(fleet_pb2.Hello(client_name=name, task="t"))
    await fleet.join(fleet_pb2.Hello(client_name="away", task="t"))
    rows = np.array([fleet.member(name).row for name in ("taken", "dropped", "away")])
    columns = history.columns(rows)
    assert columns["trained"].tolist() == [1, 0, 1]
    assert columns["missed"].tolist() == [0, 1, 0]
    in_vain = columns["unasked"] < columns["waited"]
    assert in_vain.tolist() == [False, True, False]


async def test_misses_are_counted_since_a_client_last_trained() -> None:
    fleet = Fleet(SetClock(), LeasePolicy(), [])
    member = await fleet.join(fleet_pb2.Hello(client_name="c", task="t"))
    history = History(fleet.roll)
    missed = []
    for round, trained in enumerate((False, False, True, False)):
        history.drawn((0, round, 1), ("c",))
        history.observe(RoundSeen(0, round, [Part("c", trained=trained, missed=not trained)]))
        missed.append(int(history.columns(np.array([member.row]))["missed"][0]))
    assert missed == [1, 2, 0, 1]


async def test_a_round_that_another_arm_trains_again_is_as_long_ago_as_its_cohort_was_drawn() -> None:
    fleet = Fleet(SetClock(), LeasePolicy(), [])
    member = await fleet.join(fleet_pb2.Hello(client_name="c", task="t"))
    history = History(fleet.roll)
    for round in range(6):
        history.drawn((1, round, 1), ("c",))
    history.observe(RoundSeen(1, 2, [Part("c", trained=True)]), (1, 2, 1))
    columns = history.columns(np.array([member.row]))
    assert (columns["waited"][0], columns["unasked"][0]) == (3, 3)
    history.observe(RoundSeen(1, 5, [Part("c", trained=True)]), (1, 5, 1))
    history.observe(RoundSeen(2, 2, [Part("c", trained=True)]), (1, 2, 1))
    assert history.columns(np.array([member.row]))["waited"][0] == 0


@pytest.mark.parametrize("status", list(Status))
def test_who_is_not_stopped_by_the_end_of_its_round_has_not_missed_it(status: Status) -> None:
    record = RoundRecord(0, 0, 1, b"", None, {}, 0.0, ("c",), 0, (), 1.0, START)
    assignment = AssignmentRecord("a", 0, 0, 1, "c", "train", status, 1, {})
    (part,) = round_seen(record, [assignment]).parts
    assert part.missed == (status in {Status.LATE, Status.LOST, Status.FAILED})
