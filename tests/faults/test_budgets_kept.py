"""A study that goes on after a restart has spent what it spent."""

import math
from contextlib import AsyncExitStack
from pathlib import Path

import torch
from e2e.inside import inside
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import until

from fedstep.client.work import Control, Job, StepSink, Trained
from fedstep.server.storage.base import StudyState, TrialState


class DivergingAtFirst(TinyWork):
    """The first two trials diverge; the third one waits until the gate is opened."""

    held = False

    def train(self, job: Job, control: Control, steps: StepSink) -> Trained:
        if "trial 2" in job.label and not self.held:
            self.gate.clear()
            self.held = True
        trained = super().train(job, control, steps)
        if "trial 0" in job.label or "trial 1" in job.label:
            trained.update[:] = torch.tensor(math.nan)
        return trained


async def test_rounds_that_failed_before_a_restart_are_not_given_back(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            work = DivergingAtFirst()
            await clients.enter_async_context(tiny_agent(host.address, "ann", work))
            await host.create(spec(budget={"trials": 9, "rounds_per_trial": 1, "rounds": 4}))
            await until(lambda: work.held, "the client is in the middle of the third trial")
        async with inside(tmp_path, port=port) as host:
            before = (await host.record("s")).spent
            work.gate.set()
            record = await host.until_over("s")
            trials = await host.trials("s")
    assert (before.rounds, before.client_rounds) == (2, 2)
    assert before.payload_bytes > 0
    assert record.state is StudyState.COMPLETED
    assert [trial.state for trial in trials] == [TrialState.FAILED] * 2 + [TrialState.COMPLETED] * 2
    assert (record.spent.rounds, record.spent.client_rounds) == (4, 4)
    assert record.spent.payload_bytes > before.payload_bytes
