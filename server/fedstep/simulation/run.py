"""A whole study, simulated: the real runner, engine, fleet, ledger, selectors, aggregators and tuners."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch

from fedstep.common.clock import Clock
from fedstep.common.errors import FieldViolation, InvalidInputError, NotFoundError
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import Manifest, widen
from fedstep.server.coordination.checks import check_parts
from fedstep.server.coordination.events import EventFeed
from fedstep.server.coordination.fleet import Fleet, LeasePolicy
from fedstep.server.coordination.lag import LoopLag
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.structure import check_structure
from fedstep.server.coordination.study import StudyRunner
from fedstep.server.storage.base import AssignmentRecord, Event, NewEvent, RoundRecord, StudyRecord, TrialRecord
from fedstep.server.storage.memory_blobs import MemoryBlobs
from fedstep.server.storage.memory_store import MemoryStore
from fedstep.server.tuning.outside import NAME as OUTSIDE
from fedstep.simulation.clients import SimulatedClient
from fedstep.simulation.crew import Crew, LocalCrew
from fedstep.simulation.hardship import EASE, Hardship
from fedstep.simulation.inline import InlineExecutors
from fedstep.simulation.population import Population, Roster
from fedstep.simulation.post import Post
from fedstep.simulation.speed import SpeedModel
from fedstep.simulation.virtual_loop import VirtualClock, run_virtual
from fedstep.simulation.workshop import Workshop

_DATABASE_URL = "sqlite://"
"""Optuna's tables, in memory too."""

_COMMITS = frozenset({"round_committed", "trial_completed"})
"""Events of a round, or of a measurement without a round, that was committed."""

T = TypeVar("T")


@dataclass(frozen=True)
class Federation:
    """Who takes part in a simulation.

    Attributes:
        clients: How many; client i of n has the task's share (i, n).
        options: The task's, such as the path to its data.
        speed: How fast they are.
        hardship: What else holds them up.
        vectorised: Whether clients train together where they can; else each as on a network, bit for bit.
        seed: Draws the clients' speeds, and who is held up when.
    """

    clients: int
    options: Mapping[str, str] = field(default_factory=dict)
    speed: SpeedModel = field(default_factory=SpeedModel)
    vectorised: bool = True
    seed: int = 0
    hardship: Hardship = EASE


@dataclass(frozen=True)
class Simulated:
    """What a simulated study gave.

    Attributes:
        record: The study at its end; its state says how it ended, its result the metrics of the final model.
        best: The trial whose model it ended with; None when there is none.
        trials: All trials.
        rounds: All committed rounds.
        assignments: Everything that clients were asked for in them.
        events: All events.
        virtual_s: Seconds it would have taken.
        wall_s: Seconds it took.
        manifest: The final model's layout; None when there is no model.
        weights: The final model, float32 [elements]; None when there is none.
    """

    record: StudyRecord
    best: TrialRecord | None
    trials: list[TrialRecord]
    rounds: list[RoundRecord]
    assignments: list[AssignmentRecord]
    events: list[Event]
    virtual_s: float
    wall_s: float
    manifest: Manifest | None = None
    weights: torch.Tensor | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The final model's, on the held-out set where there is one; {} when there is no model."""
        return {} if self.record.result is None else self.record.result.metrics


class SimulatedRunner(StudyRunner):
    """A study's runner that lets its caller look at the models between two rounds.

    Args:
        record: The study.
        task: Its task.
        parts: What it works with.
    """

    then = ""  # nothing is kept of a simulation that could go on

    def __init__(self, record: StudyRecord, task: Task, parts: Parts) -> None:
        super().__init__(record, task, parts, self._tidy_memory, self.announce_later)
        self._models = parts.blobs
        self._clock = parts.clock
        self._announcing: set[asyncio.Task[None]] = set()

    @property
    def virtual_s(self) -> float:
        """Seconds since the simulation began."""
        return self._clock.monotonic()

    def payload(self, trial: TrialRecord) -> torch.Tensor | None:
        """A trial's model as it was last committed, uint8 [payload_bytes]; None where it is not kept (any more)."""
        try:
            return self._models.get(trial.model_sha256)
        except NotFoundError:
            return None

    async def _tidy_memory(self, among: Set[bytes] | None) -> None:
        keep = self.kept_models()
        if among is None:
            self._models.retain(keep)
        else:
            self._models.remove(among - keep)

    def announce_later(self, study: str, event: NewEvent) -> None:
        """Commits an event where nobody can wait for it."""
        task = asyncio.get_running_loop().create_task(self.commits.announce(event))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)


def simulate(
    spec: StudySpec,
    task: Task,
    federation: Federation,
    *,
    population: Population | None = None,
    crew: Crew | None = None,
    on_commit: Callable[[SimulatedRunner], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    folder: Path | None = None,
    command: str = "",
) -> Simulated:
    """Runs a study to its end, in this process and thread; clients train and measure where their crew does.

    Torch uses as many threads as it is set to; one is the fastest for small models.

    Args:
        spec: The study.
        task: Its task.
        federation: Who takes part.
        population: The clients' data, where it is loaded already: of the same task, number of clients and options.
        crew: Who computes for the clients, of the same task, number of clients and options; None for this process.
            Whether clients train together is then the crew's affair.
        on_commit: Called after every round, or measurement, that was committed. What it raises ends the simulation.
        on_event: Called with every event of the study.
        folder: Where the model, the picture and the report are written; None to write nothing.
        command: What a person typed, for the report.

    Raises:
        InvalidInputError: The study cannot be run so, or the population is another one.
    """
    check_study(spec, task)
    if crew is None:
        population = population or Population(task, federation.clients, federation.options)
        crew = LocalCrew(population, federation.vectorised)
    _check_clients(crew.roster, federation)
    return run_virtual(_Simulation(spec, task, federation, crew, folder, command).run(on_commit, on_event))


def _check_clients(roster: Roster, federation: Federation) -> None:
    if (len(roster), roster.options) != (federation.clients, dict(federation.options)):
        raise InvalidInputError(
            f"The population has {len(roster)} clients with options {roster.options}, and the federation "
            f"{federation.clients} with {dict(federation.options)}: load the population of that federation."
        )


def check_study(spec: StudySpec, task: Task) -> None:
    """What a coordinator checks before it takes a study; and that nobody outside has to step it.

    Raises:
        InvalidInputError: It would not be taken.
    """
    found = []
    if spec.task != task.name:
        text = f"is {spec.task!r}, and the simulation was given the task {task.name!r}: name the same one."
        found.append(FieldViolation("task", text))
    if spec.tuner.name == OUTSIDE:
        text = "is outside, and nobody can reach a simulation: run the study on a coordinator, or take another tuner."
        found.append(FieldViolation("tuner.name", text))
    check_parts(spec, None if spec.task != task.name else task, found)
    check_structure(spec, task)


class _Simulation:
    """One study and all that it needs."""

    def __init__(
        self, spec: StudySpec, task: Task, federation: Federation, crew: Crew, folder: Path | None, command: str
    ) -> None:
        self._spec = spec
        self._task = task
        self._federation = federation
        self._crew = crew
        self._folder = folder
        self._command = command

    async def run(
        self, on_commit: Callable[[SimulatedRunner], None] | None, on_event: Callable[[Event], None] | None
    ) -> Simulated:
        """The study from beginning to end."""
        began_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        watch = _Watch(on_commit, on_event)
        parts = self._parts(VirtualClock(loop), watch)
        runner = SimulatedRunner(parts.store.create_study(self._spec), self._task, parts)
        parts.ledger.when_fault(runner.announce_later)
        try:
            async with asyncio.TaskGroup() as group:
                clients = await self._join(group, parts)
                study = group.create_task(runner.run(), name=f"study {self._spec.name}")
                watch.begin(runner, study)
                await asyncio.wait({study})
                for client in clients:
                    client.cancel()
        except BaseExceptionGroup as failures:
            raise _first_of(failures) from None
        if watch.error is not None:
            raise watch.error
        return self._result(parts, runner, time.perf_counter() - began_s)

    def _parts(self, clock: Clock, watch: "_Watch") -> Parts:
        executors = InlineExecutors()
        store = MemoryStore(clock=clock)
        # A client that is away says so itself, and when its lease runs out.
        fleet = Fleet(clock, LeasePolicy(heartbeat_interval=timedelta(0)), [])
        ledger = Ledger(fleet, clock)
        feed = EventFeed(store, executors.storage)
        feed.when_published(watch.heard)
        return Parts(
            store=store,
            blobs=MemoryBlobs(),
            fleet=fleet,
            ledger=ledger,
            paces=PaceBook(fleet, ledger),
            shelf=Shelf(),
            feed=feed,
            executors=executors,
            clock=clock,
            lag=LoopLag(),
            database_url=_DATABASE_URL,
            folder=self._folder,
            task_options=self._crew.roster.options,
            simulated=self._command,
        )

    async def _join(self, group: asyncio.TaskGroup, parts: Parts) -> list[asyncio.Task[None]]:
        """Every client joins, before the study begins."""
        serving = []
        roster, workshop = self._crew.roster, Workshop(self._crew)
        post = Post(parts.shelf)
        paces = self._federation.speed.draw(len(roster), self._federation.seed)
        handicaps = self._federation.hardship.draw(roster.names, self._federation.seed)
        for number, (pace, handicap) in enumerate(zip(paces, handicaps, strict=True)):
            client = SimulatedClient(
                number,
                roster,
                pace,
                handicap,
                workshop=workshop,
                post=post,
                fleet=parts.fleet,
                ledger=parts.ledger,
            )
            member = await client.join(self._spec.task)
            serving.append(group.create_task(client.serve(member), name=f"client {member.name}"))
        return serving

    def _result(self, parts: Parts, runner: SimulatedRunner, wall_s: float) -> Simulated:
        store, name = parts.store, self._spec.name
        record = store.study(name)
        digest = record.result.model_sha256 if record.result else None
        manifest = parts.blobs.manifest(digest) if digest else None
        return Simulated(
            record=record,
            best=runner.best(),
            trials=_paged(lambda after: store.trials(name, after), lambda trial: trial.number, -1),
            rounds=store.rounds(name),
            assignments=list(store.assignments(name)),
            events=_paged(lambda after: store.events(name, after), lambda event: event.number, 0),
            virtual_s=parts.clock.monotonic(),
            wall_s=wall_s,
            manifest=manifest,
            weights=widen(parts.blobs.get(digest), manifest) if digest and manifest else None,
        )


class _Watch:
    """Calls the caller back, and ends the study where that fails."""

    def __init__(
        self, on_commit: Callable[[SimulatedRunner], None] | None, on_event: Callable[[Event], None] | None
    ) -> None:
        self.error: Exception | None = None
        self._on_commit = on_commit
        self._on_event = on_event
        self._runner: SimulatedRunner | None = None
        self._study: asyncio.Task[None] | None = None

    def begin(self, runner: SimulatedRunner, study: asyncio.Task[None]) -> None:
        """From now on there is a study to watch."""
        self._runner, self._study = runner, study

    def heard(self, study: str, events: Sequence[Event]) -> None:
        """In the next turn of the loop: what is raised there ends the study, and no commit."""
        if events and (self._on_commit or self._on_event):
            asyncio.get_running_loop().call_soon(self._call, events)

    def _call(self, events: Sequence[Event]) -> None:
        if self.error is not None or self._runner is None or self._study is None:
            return
        try:
            for event in events:
                if self._on_event:
                    self._on_event(event)
            if self._on_commit and any(event.kind in _COMMITS for event in events):
                self._on_commit(self._runner)
        except Exception as error:
            self.error = error
            self._study.cancel()


def _first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """What somebody raised, out of all the groups around it."""
    first = failures.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _paged(page: Callable[[int], list[T]], number: Callable[[T], int], before: int) -> list[T]:
    """Everything that a store gives a page at a time."""
    found: list[T] = []
    while more := page(number(found[-1]) if found else before):
        found += more
    return found
