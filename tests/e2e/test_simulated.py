"""A simulated study and a networked one: given the same order of arrival, the same models bit for bit."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import torch
from e2e.inside import Inside, inside
from e2e.studies import spec

from fedstep.client.agent import Agent, Profile
from fedstep.client.trainer import Trainer
from fedstep.common.spec import StudySpec
from fedstep.common.task import ClientInfo, Task
from fedstep.common.tasks import load_task
from fedstep.server.storage.base import RoundRecord, StudyRecord, TrialRecord
from fedstep.simulation.population import Population
from fedstep.simulation.run import Federation, simulate

CLIENTS = 4


def digits() -> StudySpec:
    """A cohort of one: whoever arrives first is the last, too."""
    return spec(
        name="digits",
        seed=11,
        task="digits",
        space={
            "lr": {"type": "float", "low": 0.01, "high": 0.5, "log": True},
            "momentum": {"type": "float", "low": 0.0, "high": 0.9},
            "batch_size": {"type": "categorical", "choices": [32, 64]},
        },
        tuner={"name": "optuna", "sampler": "TPESampler", "sampler_options": {"n_startup_trials": 1}},
        aggregator={"name": "fedadam"},
        round={"min_clients": CLIENTS, "cohort_size": 1, "deadline": "60s"},
        budget={"trials": 3, "rounds_per_trial": 3, "final_rounds": 1},
    )


def decided(record: StudyRecord, trials: list[TrialRecord], rounds: list[RoundRecord]) -> tuple[object, ...]:
    """All that a study decided and made, but for what its measured times are."""
    assert record.result is not None
    return (
        [(t.hyperparameters, t.state, t.values, t.metrics, t.model_sha256) for t in trials],
        [(r.trial, r.round, r.cohort, r.evaluators, r.metrics, r.model_sha256) for r in rounds],
        (record.result.model_sha256, record.result.metrics),
    )


async def networked(folder: Path, task: Task, names: tuple[str, ...]) -> tuple[object, ...]:
    async with inside(folder, tasks=[task]) as host, AsyncExitStack() as agents:
        for number, name in enumerate(names):
            trainer = Trainer(task, task.load_data(ClientInfo(name, (number, len(names)))), torch.device("cpu"))
            profile = Profile(name, task.name, trainer.manifest(), trainer.train_samples, trainer.validation_samples)
            agent = Agent(host.address, profile, trainer)
            running = asyncio.create_task(agent.run())
            agents.push_async_callback(_ended, running)
            agents.callback(agent.stop)
        return await _whole_study(host)


async def _whole_study(host: Inside) -> tuple[object, ...]:
    study = digits()
    await host.create(study)
    record = await host.until_over(study.name)
    return decided(record, await host.trials(study.name), await host.rounds(study.name))


async def _ended(running: "asyncio.Task[bool]") -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)


async def test_the_same_models_bit_for_bit_as_over_the_network(tmp_path: Path) -> None:
    task = load_task("digits")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the coordinator sets it
    try:
        population = Population(task, CLIENTS)
        federation = Federation(CLIENTS, vectorised=False)
        found = await asyncio.to_thread(simulate, digits(), task, federation, population=population)
        over_the_network = await networked(tmp_path, task, population.names)
    finally:
        torch.set_num_threads(threads)
    assert decided(found.record, found.trials, found.rounds) == over_the_network
