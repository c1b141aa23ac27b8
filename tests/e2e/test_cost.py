"""What a study has cost, asked of a coordinator: its numbers add up, and are still there after a restart."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.inside import inside
from e2e.studies import spec
from e2e.test_arms import CLIENTS, walk
from e2e.tiny import MANIFEST, tiny_agent

from fedstep.api.aio import AsyncFedstep, connect
from fedstep.common.errors import NotFoundError
from fedstep.server.cli.cost import print_cost
from fedstep.server.storage.base import StudyState
from fedstep.v1 import study_pb2

__all__ = ["walk"]

MODEL, UPDATE = MANIFEST.payload_bytes, MANIFEST.update_bytes


def spent(cost: study_pb2.Cost, purpose: str) -> study_pb2.Spending:
    return next(one.spent for one in cost.purposes if one.purpose == purpose)


def adds_up(cost: study_pb2.Cost) -> None:
    """The purposes are all of it, those of tuning what tuning spent, and clients did all that was done."""
    for part, among in ((cost.total, cost.purposes), (cost.tuning.spent, [p for p in cost.purposes if p.tuning])):
        for field, value in part.ListFields():
            assert sum(getattr(one.spent, field.name) for one in among) == pytest.approx(value), field.name
    assert sum(one.trainings for one in cost.clients) == cost.total.client_rounds
    for name in ("model_bytes", "update_bytes", "training_seconds", "measuring_seconds"):
        assert sum(getattr(one, name) for one in cost.clients) == pytest.approx(getattr(cost.total, name)), name


async def test_every_byte_has_a_purpose_and_a_client(
    tmp_path: Path, walk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with inside(tmp_path) as host, AsyncExitStack() as clients:
        for name in CLIENTS:
            await clients.enter_async_context(tiny_agent(host.address, name))
        await host.create(spec(round={"min_clients": 3}, budget={"trials": 1}, tuner={"name": "stepwise"}))
        record = await host.until_over("s")
        assert record.state is StudyState.COMPLETED
        async with connect(host.address) as remote:
            cost = await remote.cost("s")
            with pytest.raises(NotFoundError, match="no study named 'other'"):
                await remote.cost("other")
    adds_up(cost)
    assert cost.total.rounds == record.spent.rounds == 9
    assert cost.total.client_rounds == record.spent.client_rounds == 27
    assert cost.total.model_bytes + cost.total.update_bytes == record.spent.payload_bytes
    assert cost.wall_seconds == record.seconds_spent
    # The question asked three clients and took nothing of them; behind the mean are a member and both its children.
    assert {one.purpose: (one.trials, one.spent.rounds, one.tuning) for one in cost.purposes} == {
        "delivered": (4, 6, False),
        "measuring": (0, 0, True),
        "screen": (1, 2, True),
        "averages": (1, 0, True),
        "probe": (1, 1, True),
    }
    assert spent(cost, "delivered").model_bytes == 18 * MODEL
    assert spent(cost, "delivered").update_bytes == 18 * UPDATE
    assert spent(cost, "probe").model_bytes == 3 * MODEL
    assert spent(cost, "averages").measuring_bytes == spent(cost, "averages").model_bytes == 3 * MODEL
    assert spent(cost, "averages").measuring_seconds > 0
    tuning = cost.tuning
    assert 0 < tuning.tuner_seconds < cost.wall_seconds
    assert tuning.commit_seconds > 0
    assert tuning.tuner_cpu_seconds <= tuning.added_cpu_seconds <= tuning.coordinator_cpu_seconds
    assert min(tuning.journal_bytes, tuning.event_bytes) > 0
    print_cost("s", cost)
    shown = capsys.readouterr().out
    assert "Of 9 rounds and" in shown
    assert all(name in shown for name in CLIENTS)


async def asked(remote: AsyncFedstep) -> study_pb2.Cost:
    cost = await remote.cost("s")
    adds_up(cost)
    return cost


async def test_a_restart_forgets_nothing_and_what_is_not_tuned_adds_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            work = await clients.enter_async_context(tiny_agent(host.address, "ann"))
            port = host.coordinator.port
            await host.create(spec(tuner={"name": "fixed"}, budget={"trials": 1, "rounds": 4}))
            work.gate.clear()
            await host.until_event("s", "trial_started")
            work.gate.set()
            await host.until_event("s", "round_committed")
            work.gate.clear()
            async with connect(host.address) as remote:
                before = await remote.cost("s")  # in the middle of a round, whose client is not told of yet
        work.gate.set()
        async with inside(tmp_path, port=port) as host:
            await host.until_over("s")
            async with connect(host.address) as remote:
                after = await asked(remote)
        async with inside(tmp_path, port=port) as host, connect(host.address) as remote:
            assert await asked(remote) == after
    assert 1 <= before.total.rounds <= after.total.rounds
    assert after.total.rounds == 4
    assert 0 < before.tuning.coordinator_cpu_seconds < after.tuning.coordinator_cpu_seconds
    assert (after.tuning.spent, after.tuning.byte_share) == (study_pb2.Spending(), 0)
