"""`fedstep study report`: what a coordinator tells of a study, as a page."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from fedstep.api.aio import AsyncFedstep
from fedstep.common.errors import StorageError
from fedstep.server.cli.records import event_record, share, study_record, trial_records
from fedstep.server.cli.show import print_json
from fedstep.server.report.cost import ClientCost, Purpose, PurposeCost, Spending
from fedstep.server.report.page.page import PICTURES, write_report
from fedstep.server.report.page.story import Holding, Story, ToldCost, delivered
from fedstep.v1 import study_pb2

FOLDER = Path("fedstep-reports")


async def report(remote: AsyncFedstep, name: str, folder: Path | None, as_json: bool) -> None:
    """Writes the report of a study, and says where it is.

    Args:
        remote: The coordinator.
        name: The study.
        folder: Where to; None for one of its own in `fedstep-reports`.
        as_json: Say it as JSON.

    Raises:
        StorageError: The folder cannot be written to.
    """
    console = Console(stderr=True)
    with console.status(f"Reading the study {name}") as status:
        story = await story_of(remote, name)
        status.update(f"Drawing {len(story.trials):,} trials")
        where = folder or FOLDER / name
        try:
            page = await asyncio.to_thread(write_report, where, story)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(
                f"The report cannot be written to {where} ({reason}): give another folder with --out."
            ) from error
    pictures = sorted((where / PICTURES).glob("*.png"))
    if as_json:
        print_json({"report": str(page), "pictures": [str(path) for path in pictures]})
        return
    print(f"report          {page}")
    if pictures:
        print(f"its pictures    {where / PICTURES}")


async def story_of(remote: AsyncFedstep, name: str) -> Story:
    """All that a coordinator tells of a study.

    Args:
        remote: The coordinator.
        name: The study.
    """
    study = await remote.get(name)
    trials = trial_records([trial async for trial in remote.trials(name)])
    events = [event_record(event) async for event in remote.past_events(study)]
    told = await remote.participation(name)
    asked = told.left_out.asked + told.others.asked > 0
    shares = [share(part) for part in told.clients]
    clients = {part.client for part in shares}
    return Story(
        study=study_record(study),
        trials=delivered(trials.values(), study.best_trial.number if study.HasField("best_trial") else None),
        events=events,
        took_part=told.text if asked else "",
        shares=shares,
        holdings=[_holding(client) for client in await remote.clients() if client.name in clients],
        cost=told_cost(await remote.cost(name)),
        written_at=datetime.now(UTC),
    )


def told_cost(message: study_pb2.Cost) -> ToldCost:
    """A cost as it is told."""
    tuning = message.tuning
    return ToldCost(
        wall_seconds=message.wall_seconds,
        purposes=[*_purposes(message.purposes)],
        clients=[
            ClientCost(
                one.client_name,
                one.trainings,
                one.measurements,
                one.model_bytes,
                one.update_bytes,
                one.training_seconds,
                one.measuring_seconds,
            )
            for one in message.clients
        ],
        tuner_seconds=tuning.tuner_seconds,
        tuner_cpu_seconds=tuning.tuner_cpu_seconds,
        cpu_seconds=tuning.coordinator_cpu_seconds,
        added_cpu_seconds=tuning.added_cpu_seconds,
    )


def _purposes(messages: Iterable[study_pb2.PurposeCost]) -> Iterable[PurposeCost]:
    known = {purpose.value: purpose for purpose in Purpose}
    for one in messages:
        if one.purpose in known:
            yield PurposeCost(known[one.purpose], one.trials, _spending(one.spent), 0, one.tuning)


def _spending(message: study_pb2.Spending) -> Spending:
    return Spending(
        message.rounds,
        message.client_rounds,
        message.model_bytes,
        message.measuring_bytes,
        message.update_bytes,
        message.seconds,
        message.training_seconds,
        message.measuring_seconds,
    )


def _holding(client: study_pb2.Client) -> Holding:
    return Holding(client.name, client.train_samples, client.validation_samples)
