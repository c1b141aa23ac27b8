"""What is known of clients' pace, and that it outlives the coordinator."""

from pathlib import Path

import pytest
from e2e.inside import inside, query
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until

from fedstep.client.work import AbandonedError, Control, Job, StepSink, Trained
from fedstep.server.coordination.ledger import Status
from fedstep.server.selection.pace import Known
from fedstep.server.storage.base import StudyState


async def test_a_pace_is_measured_and_a_restart_does_not_begin_blind(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with inside(folder) as host, tiny_agent(host.address, "a"):
        await host.create(spec(selector={"name": "deadline"}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        learnt = host.coordinator.parts.paces.known("a")
    assert learnt.step_ms == pytest.approx(2.0)
    assert learnt.batch_size == 16
    assert learnt.download_bytes_per_s > 0
    assert learnt.upload_bytes_per_s > 0
    assert query(folder, "SELECT client FROM fedstep_paces") == [("a",)]
    async with inside(folder) as host:
        assert host.coordinator.parts.paces.known("a") == learnt
        async with tiny_agent(host.address, "a"):
            await until(lambda: host.coordinator.parts.fleet.find("a"), "it is back")
            assert host.coordinator.parts.paces.known("a") == learnt
            assert host.coordinator.parts.paces.known("b") == Known()


class OneLongStep(TinyWork):
    """Takes one step, and is in the middle of the next one whatever it is told."""

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        steps.step(1.0, 5, 2.0)
        self.gate.wait(60)
        raise AbandonedError("told to stop")


async def test_who_is_cut_off_at_the_deadline_is_known_not_to_be_faster(tmp_path: Path) -> None:
    slow = OneLongStep()
    slow.gate.clear()
    async with (
        inside(tmp_path / "data") as host,
        tiny_agent(host.address, "fast"),
        tiny_agent(host.address, "slow", slow),
    ):
        policy = {"min_clients": 2, "deadline": "0.5s", "quorum": 0.5, "late_updates": "drop"}
        await host.create(spec(round=policy, hyperparameters={"batch_size": 5}, budget={"rounds_per_trial": 1}))
        assert (await host.until_over("s")).state is StudyState.COMPLETED
        statuses = {part.status for part in await host.assignments("s", "slow") if part.work == "train"}
        paces = host.coordinator.parts.paces
        fast, known_slow = paces.known("fast"), paces.known("slow")
    assert statuses == {Status.LATE}
    assert fast.step_ms == pytest.approx(2.0)
    assert known_slow.step_ms > 4 * fast.step_ms  # believed by and by
