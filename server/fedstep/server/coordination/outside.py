"""Runs that programs outside step, fork and rewind: what RunService asks of a study whose tuner is `outside`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fedstep.common.errors import AlreadyExistsError, FieldViolation, NotFoundError, PreconditionError, UnavailableError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.coordination.study import StudyRunner
from fedstep.server.storage.base import StudyRecord, StudyState, TrialRecord, TrialState
from fedstep.server.tuning.base import Tuner
from fedstep.server.tuning.outside import NAME, OutsideTuner, no_run, phase_of
from fedstep.server.tuning.outside_runs import OutsideRun, from_json

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Step:
    """A step that is done: its number, and the arm that it was."""

    number: int
    trial: TrialRecord


@dataclass(frozen=True)
class RunView:
    """A run as it was last committed.

    Attributes:
        study: Its study.
        run: The run.
        step: The step it stands after; None where that is none.
    """

    study: StudyRecord
    run: OutsideRun
    step: Step | None


class OutsideRuns:
    """The runs of all studies. What changes one is committed before it is answered.

    Every call that names a study raises NotFoundError where there is none, and PreconditionError where its tuner is
    another one. Calls that change a run raise PreconditionError where the study has ended, and UnavailableError where
    it is interrupted; and what `OutsideTuner` says.

    Args:
        studies: The coordinator's.
        parts: What studies work with.
    """

    def __init__(self, studies: Studies, parts: Parts) -> None:
        self._studies = studies
        self._parts = parts

    async def open(self, study: str, name: str) -> RunView:
        """A new run, or the one there is."""
        opened = await self._ask(study, lambda tuner: tuner.open(name))
        return await self.get(study, opened)

    async def fork(self, study: str, name: str, step: int | None, new: str) -> RunView:
        """A new run from where another one stood, or the one there is."""
        forked = await self._ask(study, lambda tuner: tuner.fork(name, step, new))
        return await self.get(study, forked)

    async def restore(self, study: str, name: str, step: int, source: str) -> RunView:
        """Puts a run where it, or another one, stood."""
        await self._ask(study, lambda tuner: tuner.move(name, step, source))
        return await self.get(study, name)

    async def close(self, study: str, name: str) -> RunView:
        """Lets go of a run; in a study that has ended all are."""
        view = await self.get(study, name)
        if view.run.closed or view.study.state.ended:
            return view
        await self._ask(study, lambda tuner: tuner.close_run(name))
        return await self.get(study, name)

    async def step(self, study: str, name: str, step: int, hyperparameters: Hyperparameters, rounds: int) -> Step:
        """Has a run trained, and waits for what comes of it; a caller that goes away calls nothing off.

        Raises:
            AlreadyExistsError: The step was asked before with other words.
        """
        record = await self._record(study)
        if step and (done := await self._step(record, _find(record, name), step)):
            return _the_same(name, done, hyperparameters, rounds)
        number = await self._ask(study, lambda tuner: tuner.ask(name, step, hyperparameters, rounds))
        runner = self._studies.runner(study)
        if runner is not None:
            await runner.tuner.until(lambda tuner: _is_done(runner, tuner, name, number))
        record = await self._record(study)
        answer = await self._step(record, _find(record, name), number)
        if answer is None:
            raise _over(record)
        return _the_same(name, answer, hyperparameters, rounds)

    async def get(self, study: str, name: str) -> RunView:
        """A run.

        Raises:
            NotFoundError: There is no such run.
        """
        record = await self._record(study)
        return await self._view(record, _find(record, name))

    async def page(self, study: str, after: str, limit: int) -> Sequence[RunView]:
        """Runs by name, from the first one after a name on."""
        record = await self._record(study)
        runs = _runs(record)
        names = islice((name for name in sorted(runs) if name > after), limit)
        return [await self._view(record, runs[name]) for name in names]

    async def _ask(self, study: str, request: Callable[[OutsideTuner], _Answer]) -> _Answer:
        record = await self._record(study)
        runner = self._studies.runner(study)

        def asked(tuner: Tuner) -> tuple[_Answer]:
            assert isinstance(tuner, OutsideTuner)  # as the study says
            answer = request(tuner)
            tuner.heard(self._parts.clock.now())
            return (answer,)

        answer = await runner.tuner.steer(asked) if runner is not None else None
        if answer is None:
            raise _over(record if runner is None else await self._record(study))
        return answer[0]

    async def _record(self, study: str) -> StudyRecord:
        try:
            record = await self._studies.record(study)
        except NotFoundError as error:
            raise NotFoundError(error.message, [FieldViolation("study", error.message)]) from None
        if record.spec.tuner.name != NAME:
            text = f"{study} is tuned by {record.spec.tuner.name}: only a study with the tuner outside has runs."
            raise PreconditionError(f"study: {text}", [FieldViolation("study", text)])
        return record

    async def _view(self, record: StudyRecord, run: OutsideRun) -> RunView:
        return RunView(record, run, await self._step(record, run, run.step))

    async def _step(self, record: StudyRecord, run: OutsideRun, number: int) -> Step | None:
        """A step as it was committed; None where it is not done, or not kept, or was none."""
        stand = run.stand(number)
        if stand is None or stand.arm is None:
            return None
        trials = await self._parts.executors.storage.run(self._parts.store.trials, record.spec.name, stand.arm - 1, 1)
        done = trials and trials[0].number == stand.arm and trials[0].state is not TrialState.RUNNING
        return Step(number, trials[0]) if done else None


def _runs(record: StudyRecord) -> dict[str, OutsideRun]:
    return from_json(record.tuner_state.get("runs", {}))


def _find(record: StudyRecord, name: str) -> OutsideRun:
    runs = _runs(record)
    if name not in runs:
        raise no_run(record.spec.name, name, runs, over=record.state.value if record.state.ended else "")
    return runs[name]


def _is_done(runner: StudyRunner, tuner: Tuner, name: str, number: int) -> bool:
    """Whether a step's arm has ended, its last commit included."""
    assert isinstance(tuner, OutsideTuner)
    run = tuner.find(name)
    if run is None or (run.asked is not None and run.asked.step == number):
        return False
    stand = run.stand(number)
    arm = stand.arm if stand is not None else None
    return arm is None or (arm in runner.trials and runner.trials[arm].state is not TrialState.RUNNING)


def _the_same(name: str, done: Step, hyperparameters: Hyperparameters, rounds: int) -> Step:
    """The step, if it is the one that was asked for."""
    trial = done.trial
    was = trial.details.get("phase"), trial.hyperparameters, trial.details.get("rounds")
    if was != (phase_of(name), hyperparameters, rounds):
        text = f"{done.number} of {name} was asked with other hyper-parameters or rounds, and is done."
        raise AlreadyExistsError(f"step: {text}", [FieldViolation("step", text)])
    return done


def _over(record: StudyRecord) -> PreconditionError | UnavailableError:
    """Why a study's runs are not stepped: a retry helps where it goes on."""
    name = record.spec.name
    if record.state.ended:
        text = f"{name} is {record.state.value}: its runs are closed; create another study."
        return PreconditionError(f"study: {text}", [FieldViolation("study", text)])
    if record.state is StudyState.PAUSED:
        return UnavailableError(
            f"The study {name} is paused: go on with `fedstep study resume {name}`, or ResumeStudy."
        )
    return UnavailableError(f"The study {name} is {record.state.value}: {record.message or 'ask again.'}")
