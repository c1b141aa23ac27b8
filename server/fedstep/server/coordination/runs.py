"""The runs of a study: those under way, and the ended ones that others may go on from."""

from collections.abc import Callable, Collection, Iterable

from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.server.coordination import checkpoint
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.run import Run, initial_run, mean_run, resolve
from fedstep.server.coordination.shelf import cut
from fedstep.server.storage.base import TrialRecord
from fedstep.server.tuning.base import Arm


class Runs:
    """Makes runs, and has the models of those under way on the shelf for clients.

    Args:
        spec: The study.
        task: Its task.
        parts: What it works with.
    """

    def __init__(self, spec: StudySpec, task: Task, parts: Parts) -> None:
        self._spec = spec
        self._task = task
        self._parts = parts
        self._open: dict[int, Run] = {}
        self._ended: dict[int, Run] = {}

    @property
    def open(self) -> list[int]:
        """The numbers of those under way."""
        return sorted(self._open)

    def has_ended(self, numbers: Collection[int]) -> bool:
        """Whether all of these have ended, their last commits included."""
        return self._ended.keys() >= set(numbers)

    async def start(self, arm: Arm) -> Run:
        """A new run, from the study's initial model or from where the arm's parents ended."""
        return await self._open_with(lambda: self._started(arm))

    async def resume(self, trial: TrialRecord) -> Run:
        """A trial's run as it was last committed."""
        if not trial.model_sha256:
            return await self.start(Arm(trial.number, trial.hyperparameters))
        return await self._open_with(lambda: self._loaded(trial))

    async def restore(self, trials: Iterable[TrialRecord]) -> None:
        """Loads ended runs that others may go on from, after a restart."""
        for trial in trials:
            self._ended[trial.number] = await self._parts.executors.compute.run(self._loaded, trial)

    async def save(self, run: Run) -> bytes:
        """Writes a run to the model folder; answers with the digest of what is beside its model."""
        beside = await self._parts.executors.compute.run(checkpoint.beside_of, run)
        await self._parts.executors.files.run(checkpoint.save, run, beside, self._parts.blobs)
        return beside.sha256

    def went_on(self, before: Run, after: Run) -> None:
        """A round is committed: clients need the model before it no more."""
        if after is not before:
            self._open[before.trial] = after
            self._parts.shelf.drop(before.model_sha256)

    def end(self, number: int, kept: Collection[int]) -> None:
        """A run has ended. Of the ended ones only those of these numbers stay."""
        ended = self._ended[number] = self._open.pop(number)
        self._parts.shelf.drop(ended.model_sha256)
        self._ended = {other: run for other, run in self._ended.items() if other in kept}

    def close(self) -> None:
        """Takes everything off the shelf."""
        for run in self._open.values():
            self._parts.shelf.drop(run.model_sha256)

    async def _open_with(self, make: Callable[[], Run]) -> Run:
        def put() -> Run:
            run = make()
            if not self._parts.shelf.share(run.model_sha256, run.manifest):
                self._parts.shelf.put(cut(run.payload()), run.manifest, run.model_sha256)
            return run

        run = await self._parts.executors.compute.run(put)
        self._open[run.trial] = run
        return run

    def _started(self, arm: Arm) -> Run:
        hyperparameters = resolve(self._spec, self._task, arm.hyperparameters)
        if not arm.parents:
            return initial_run(self._spec, self._task, arm.number, hyperparameters)
        start = mean_run([self._ended[number] for number in arm.parents])
        return (start.of_average() if arm.of_average else start).fork(arm.number, hyperparameters)

    def _loaded(self, trial: TrialRecord) -> Run:
        return checkpoint.load(self._spec, self._task, trial, self._parts.blobs)
