"""One study of a comparison: simulated, watched on the held-out set, and written down."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from fedstep.common.errors import InternalError, InvalidInputError
from fedstep.common.evaluate import evaluate
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tasks import build_model, load_task
from fedstep.common.tensors import Manifest, narrow, unpack
from fedstep.server.coordination.run import initial_run, resolve
from fedstep.server.storage.base import StudyState, TrialRecord, TrialState
from fedstep.server.tuning.ranking import is_untrained
from fedstep.simulation.hardship import EASE, Hardship
from fedstep.simulation.legs import average_of, schedule_of
from fedstep.simulation.outcome import Key, Outcome, Point
from fedstep.simulation.population import Population
from fedstep.simulation.run import Federation, Simulated, SimulatedRunner, simulate
from fedstep.simulation.speed import SpeedModel

POINTS = 40
"""Points of a curve, beside those of the initial model and of the one delivered."""


@dataclass(frozen=True)
class Setting:
    """What all studies of a comparison have in common.

    Attributes:
        task: As `load_task` takes it.
        clients: Of the federation.
        options: The task's.
        speed_spread: Of the clients' speeds, see `SpeedModel`.
        vectorised: Whether clients train together where they can.
        hardship: What else holds clients up.
    """

    task: str
    clients: int
    options: Mapping[str, str] = field(default_factory=dict)
    speed_spread: float = SpeedModel.spread
    vectorised: bool = True
    hardship: Hardship = EASE


@dataclass(frozen=True)
class Job:
    """A study to simulate.

    Attributes:
        key: Which it is.
        spec: What it is.
    """

    key: Key
    spec: StudySpec

    def __str__(self) -> str:
        again = ", trained again" if self.key.protocol == "retrained" else ""
        return f"{self.key.tuner}, seed {self.key.seed}, {self.key.budget} rounds{again}"


class Simulate(Protocol):
    """What `fedstep.simulation.run.simulate` does; a test's may be cheaper."""

    def __call__(
        self,
        spec: StudySpec,
        task: Task,
        federation: Federation,
        *,
        population: Population,
        on_commit: Callable[[SimulatedRunner], None],
    ) -> Simulated:
        """Runs a study to its end."""


class Bench:
    """Carries out the jobs of a comparison in one process; the clients' data is loaded once.

    Args:
        setting: What the jobs have in common.
        run: What simulates a study.

    Raises:
        InvalidInputError: There is no such task, its data cannot be read, or it has no held-out set.
    """

    def __init__(self, setting: Setting, run: Simulate = simulate) -> None:
        self._setting = setting
        self._run = run
        self._task = load_task(setting.task)
        self._population = Population(self._task, setting.clients, setting.options)
        held_out = self._population.held_out
        if held_out is None:
            raise InvalidInputError(
                f"The task {self._task.name} has no held-out set here, which tuners are compared on: give its data "
                "with --option data=PATH, or a load_held_out to a task of your own."
            )
        self._held_out = held_out

    def __call__(self, job: Job) -> Outcome:
        """Simulates a study and measures what it delivers.

        A study without a model delivers the initial one: nothing was trained that could be used.

        Raises:
            FedstepError: The study cannot be run.
        """
        started = time.perf_counter()
        start = self._start(job.spec)
        watch = _Watch(job.spec, self.measure, Point(rounds=0.0, seconds=0.0, value=start[job.spec.objective.metric]))
        simulated = self._run(
            job.spec,
            self._task,
            self._federation(job.key.seed),
            population=self._population,
            on_commit=watch,
        )
        trials = {trial.number: trial for trial in simulated.trials}
        best = _delivered(simulated)
        metrics = start if best is None else self._held_out_metrics(job.spec, simulated, best)
        value = metrics[job.spec.objective.metric]
        return Outcome(
            key=job.key,
            value=value,
            metrics=metrics,
            curve=watch.ended(simulated.virtual_s, value),
            schedule=() if best is None else schedule_of(trials, best.number),
            average=0.0 if best is None else average_of(trials, best.number),
            note=simulated.record.message if best is None else "",
            wall_s=time.perf_counter() - started,
        )

    def measure(self, spec: StudySpec, point: Hyperparameters, payload: torch.Tensor) -> dict[str, float]:
        """The metrics of a model on the held-out set.

        Args:
            spec: The study.
            point: What it was trained with.
            payload: The model, uint8 [payload_bytes].
        """
        model = build_model(self._task, resolve(spec, self._task, point))
        model.load_state_dict(unpack(payload, Manifest.of(model.state_dict())))
        metrics, _ = evaluate(self._task, model, self._held_out, torch.device("cpu"))
        return metrics

    def _held_out_metrics(self, spec: StudySpec, simulated: Simulated, best: TrialRecord) -> dict[str, float]:
        """The delivered model's: the study's own, or measured here where the study has none but its clients'."""
        if simulated.record.result is not None and simulated.record.result.held_out:
            return simulated.metrics
        if simulated.weights is None or simulated.manifest is None:
            raise InternalError(f"The study {spec.name} delivers trial {best.number} without its model.")
        return self.measure(spec, best.hyperparameters, narrow(simulated.weights, simulated.manifest))

    def _start(self, spec: StudySpec) -> dict[str, float]:
        """The initial model's metrics."""
        run = initial_run(spec, self._task, 0, resolve(spec, self._task, {}))
        metrics = self.measure(spec, {}, run.payload())
        if spec.objective.metric not in metrics:
            raise InvalidInputError(
                f"The study's objective is {spec.objective.metric}, which the task {self._task.name} does not "
                f"measure: it has {', '.join(sorted(metrics))}."
            )
        return metrics

    def _federation(self, seed: int) -> Federation:
        speed = SpeedModel(spread=self._setting.speed_spread)
        setting = self._setting
        return Federation(setting.clients, setting.options, speed, setting.vectorised, seed, setting.hardship)


def _delivered(simulated: Simulated) -> TrialRecord | None:
    """The trial that a study delivers; None when every trial failed, as trials do.

    Raises:
        InternalError: It was the study that failed.
    """
    record, best = simulated.record, simulated.best
    trained = [trial for trial in simulated.trials if not (trial.details.get("discard") or is_untrained(trial))]
    came_to_nothing = best is None and all(trial.state is TrialState.FAILED for trial in trained)
    if record.state is StudyState.COMPLETED or (record.state is StudyState.FAILED and came_to_nothing):
        return best
    raise InternalError(
        f"The study is {record.state.value} before its end ({record.message.rstrip('.')}): mend that, and run the same "
        "command again."
    )


class _Watch:
    """Follows a study: what its model would be worth if it ended now, on samples that nobody trains on.

    Args:
        spec: The study. A point is taken whenever a fortieth of its client-rounds was spent.
        measure: As `Bench.measure`.
        start: The initial model's point.
    """

    def __init__(
        self,
        spec: StudySpec,
        measure: Callable[[StudySpec, Hyperparameters, torch.Tensor], Mapping[str, float]],
        start: Point,
    ) -> None:
        self._spec = spec
        self._measure = measure
        self._points = [start]
        self._step = spec.budget.client_rounds / POINTS
        self._due = self._step
        self._spent = 0
        self._values: dict[bytes, float] = {}

    def __call__(self, runner: SimulatedRunner) -> None:
        """Takes a point when one is due and there is a model. To be called after every commit."""
        self._spent = runner.spent.client_rounds
        best = runner.best() if self._spent >= self._due else None
        if best is None:
            return
        value = self._value(runner, best)
        if value is not None:
            self._due = (self._spent // self._step + 1) * self._step
            self._points.append(self._point(runner.virtual_s, value))

    def ended(self, seconds: float, value: float) -> tuple[Point, ...]:
        """The curve, with the model delivered as its last point."""
        last = self._point(seconds, value)
        return (*(point for point in self._points if point.rounds < last.rounds), last)

    def _point(self, seconds: float, value: float) -> Point:
        return Point(rounds=self._spent / self._spec.round.cohort_size, seconds=seconds, value=value)

    def _value(self, runner: SimulatedRunner, trial: TrialRecord) -> float | None:
        """The model's value; one that stands for long is measured once."""
        digest = trial.model_sha256
        if digest not in self._values:
            payload = runner.payload(trial)
            if payload is None:
                return None
            metrics = self._measure(self._spec, trial.hyperparameters, payload)
            self._values = {digest: metrics[self._spec.objective.metric]}
        return self._values[digest]
