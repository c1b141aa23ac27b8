"""Ray Tune's population in a coordinator that is stopped in the middle: real sockets, a real database."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from e2e.inside import inside
from e2e.studies import spec
from e2e.tiny import tiny_agent
from e2e.waiting import until_true

from fedstep.server.storage.base import StudyState, TrialRecord

CLIENTS = ("ann", "ben")
BUDGET = {"trials": 4, "rounds": 16, "rounds_per_trial": 4}
POPULATION = {"name": "ray", "scheduler": "PopulationBasedTraining", "scheduler_options": {"perturbation_interval": 1}}


async def trained(folder: Path, tuner: dict[str, Any], stop_at: int = 0) -> list[TrialRecord]:
    """The arms of a study whose coordinator is stopped after so many rounds, and started again."""
    study = spec(tuner=tuner, round={"min_clients": 2}, budget=BUDGET)
    async with AsyncExitStack() as clients:
        async with inside(folder) as host:
            port = host.coordinator.port
            works = [await clients.enter_async_context(tiny_agent(host.address, name)) for name in CLIENTS]
            await host.create(study)
            if not stop_at:
                record = await host.until_over("s")
                assert record.state is StudyState.COMPLETED, record.message
                return list(await host.trials("s"))
            works[0].gate.clear()

            async def enough() -> bool:
                works[0].gate.set()  # one more training
                works[0].gate.clear()
                return len(await host.rounds("s")) >= stop_at

            await until_true(enough, f"{stop_at} rounds are committed")
        for work in works:
            work.gate.set()
        async with inside(folder, port=port) as host:
            record = await host.until_over("s")
            assert record.state is StudyState.COMPLETED, record.message
            return list(await host.trials("s"))


@pytest.mark.parametrize("tuner", [POPULATION, {"name": "ray"}], ids=["population", "asha"])
async def test_a_coordinator_that_is_started_again_goes_on_with_the_same_arms(
    tmp_path: Path, tuner: dict[str, Any]
) -> None:
    whole = await trained(tmp_path / "whole", tuner)
    cut = await trained(tmp_path / "cut", tuner, stop_at=7)
    assert [trial.hyperparameters for trial in cut] == [trial.hyperparameters for trial in whole]
    assert [trial.details.get("parents") for trial in cut] == [trial.details.get("parents") for trial in whole]
    assert sum(len(trial.values) for trial in cut) == BUDGET["rounds"]
