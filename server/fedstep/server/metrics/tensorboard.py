"""A study as event files for TensorBoard: `FOLDER/STUDY/...`, one run a trial.

An arm of a step-wise study is a run of its own as well, and stands at the rounds that are behind its model, so that
forks read as the tree they are. When the study has ended, the run `delivered` goes through those that made its model.
"""

import asyncio
import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedstep.common.errors import FedstepError, InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.coordination.executors import to_its_end
from fedstep.server.coordination.parts import Parts
from fedstep.server.report.lineage import has_arms, phase_of, way_to
from fedstep.server.storage.base import Event, RoundRecord, TrialRecord, all_trials

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

WAITING = 10_000
"""Events that wait to be written; those beyond are left out of the files."""

DELIVERED = "delivered"
_ENDED = ("trial_completed", "trial_pruned", "trial_failed")


def need_tensorboard() -> None:
    """Raises unless TensorBoard is installed.

    Raises:
        InvalidInputError: It is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise InvalidInputError(
            '--tensorboard needs TensorBoard: install it with `pip install "fedstep[tensorboard]"`, or leave it out.'
        )


class TensorBoard:
    """Writes what studies commit.

    Args:
        folder: Where to.
        parts: The coordinator's.
    """

    def __init__(self, folder: Path, parts: Parts) -> None:
        self._folder = folder
        self._parts = parts
        self._events: asyncio.Queue[tuple[str, Event]] = asyncio.Queue(WAITING)
        self._trials: dict[tuple[str, int], TrialRecord] = {}
        self._writers: dict[tuple[str, int], SummaryWriter] = {}
        parts.feed.when_published(self._heard)

    async def keep_up(self) -> None:
        """Writes, for ever; what cannot be written is logged and left out."""
        while True:
            await to_its_end(self._try_to_write(*await self._events.get()))

    async def close(self) -> None:
        """Writes what was told of so far, and ends all files."""
        while not self._events.empty():
            await self._try_to_write(*self._events.get_nowait())
        for writer in self._writers.values():
            await self._parts.executors.files.run(writer.close)
        self._writers.clear()

    def _heard(self, study: str, events: Sequence[Event]) -> None:
        for event in events:
            if event.kind in ("round_committed", "study_completed", "study_stopped", *_ENDED):
                if self._events.full():
                    log.warning("event files lag behind: an event of study %s is left out of them", study)
                    return
                self._events.put_nowait((study, event))

    async def _try_to_write(self, study: str, event: Event) -> None:
        try:
            await self._write(study, event)
        except (OSError, FedstepError) as error:
            log.warning("the event files of study %s cannot be written to: %s", study, error)

    async def _write(self, study: str, event: Event) -> None:
        storage, files = self._parts.executors.storage, self._parts.executors.files
        if event.kind.startswith("study_"):
            trials = await storage.run(all_trials, self._parts.store, study)
            rounds = await storage.run(self._parts.store.rounds, study)
            await files.run(self._write_delivered, study, trials, rounds)
            return
        key = study, int(event.details["trial"])
        if event.kind in _ENDED:
            self._trials.pop(key, None)
            if writer := self._writers.pop(key, None):
                await files.run(writer.close)
            return
        if key not in self._trials:
            found = await storage.run(self._parts.store.trials, study, key[1] - 1, 1)
            self._trials[key] = found[0]
        told = event.details
        took = {"seconds": told["seconds"], "updates": told["updates"]}
        point = self._trials[key].hyperparameters
        await files.run(self._write_round, key, int(told["round"]), told["value"], told["metrics"], took, point)

    def _write_round(
        self,
        key: tuple[str, int],
        round: int,
        value: float | None,
        metrics: Mapping[str, float],
        took: Mapping[str, float],
        point: Hyperparameters,
    ) -> None:
        if key not in self._writers:
            self._writers[key] = self._writer(key[0], run_name(self._trials[key]))
        write_round(self._writers[key], round, value, metrics, took, point)

    def _write_delivered(self, study: str, trials: Sequence[TrialRecord], rounds: Sequence[RoundRecord]) -> None:
        """The rounds behind the delivered model, in order."""
        delivered = [trial.number for trial in trials if trial.details.get("delivered")]
        if not delivered:
            return
        by_number = {trial.number: trial for trial in trials}
        way = {trial.number for trial in way_to(by_number, delivered[-1])}
        writer = self._writer(study, DELIVERED)
        for record in rounds:
            if record.trial in way:
                took = {"seconds": record.seconds, "updates": record.updates}
                point = by_number[record.trial].hyperparameters
                write_round(writer, record.round, record.value, record.metrics, took, point)
        writer.close()

    def _writer(self, study: str, run: str) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter  # late: a second and a half, once

        return SummaryWriter(str(self._folder / study / run))


def run_name(trial: TrialRecord) -> str:
    """A trial's run: its number, and what it is for where its tuner says so."""
    name = f"{trial.number:04d}"
    return f"arms/{name}-{phase_of(trial) or 'arm'}".replace(" ", "-") if has_arms([trial]) else f"trials/{name}"


def write_round(
    writer: "SummaryWriter",
    round: int,
    value: float | None,
    metrics: Mapping[str, float],
    took: Mapping[str, float],
    point: Hyperparameters,
) -> None:
    """One round's scalars; what is no finite number is left out. A choice is written as a text."""
    values = {"objective": value, **{f"metrics/{name}": number for name, number in metrics.items()}}
    values |= {f"round/{name}": number for name, number in took.items()}
    for name, setting in point.items():
        if isinstance(setting, str):
            writer.add_text(f"hyperparameters/{name}", setting, round)
        else:
            values[f"hyperparameters/{name}"] = float(setting)
    for name, number in values.items():
        if number is not None and math.isfinite(number):
            writer.add_scalar(name, number, round)
    writer.flush()
