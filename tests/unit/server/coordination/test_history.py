"""What a study knows of its clients' parts."""

import numpy as np

from contract.store_kit import SetClock
from fedstep.server.coordination.fleet import Fleet, LeasePolicy
from fedstep.server.coordination.history import History
from fedstep.server.selection.base import Part, RoundSeen
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
