"""Who can train, who is asked, and who evaluates."""

import asyncio
import copy
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from fedstep.common.clock import Clock
from fedstep.common.errors import UnavailableError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.history import History, round_seen
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.outcome import Work
from fedstep.server.coordination.pacing import PaceBook, steps_of
from fedstep.server.coordination.pricing import MOST_CLIENTS, Experience, PriceList, priced
from fedstep.server.coordination.roll import grown
from fedstep.server.coordination.run import Run, resolve, rng_of, seed_of
from fedstep.server.report.units import seconds_text
from fedstep.server.report.words import names_text
from fedstep.server.selection.base import Candidates, RoundSeen, Selection, SelectionContext, Selector
from fedstep.server.selection.evaluation import Ranks
from fedstep.server.storage.base import AssignmentRecord, NewEvent, RoundRecord
from fedstep.server.tuning.base import Arm

BUSY_WAIT_S = 5.0
"""How often it is looked again who is there, while clients are busy."""

RETURN_WAIT_S = 8.0
"""Clients that lost their coordinator try again every five seconds or sooner."""

_A_MOMENT_S = 0.001
"""A timer may ring a hair early: waited for so much longer, a study's time is used up for certain."""

HASHED_AT_ONCE = 5_000
"""Names whose ranks are worked out before the event loop has its turn again: a few milliseconds."""

Announce = Callable[[NewEvent], Awaitable[None]]
"""Tells a study's watchers something that cannot wait for a round's commit."""

Rows = NDArray[np.intp]


class Cohorts:
    """The clients of one study.

    Args:
        spec: The study.
        fleet: Who is there.
        paces: How fast they are.
        selector: Chooses among those who can train.
        clock: For people, who are told until when clients are waited for.
        announce: For what cannot wait.
        time_left_s: Seconds until the study's time is used up: nobody is waited for any longer.
    """

    def __init__(
        self,
        spec: StudySpec,
        fleet: Fleet,
        paces: PaceBook,
        selector: Selector,
        clock: Clock,
        announce: Announce,
        time_left_s: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._fleet = fleet
        self._paces = paces
        self._selector = selector
        self._clock = clock
        self._announce = announce
        self._time_left_s = time_left_s
        self._history = History(fleet.roll)
        self._ranks = Ranks()
        self._layout: Manifest | None = None
        self._verdicts: dict[str, tuple[str, str | None]] = {}
        self._fits = np.empty(0, bool)
        self._looked_at: NDArray[np.int64] = np.empty(0, np.int64)
        self._stopping = False

    def compare_with(self, layout: Manifest) -> None:
        """From now on a client's model must have this layout at its default hyper-parameters."""
        self._layout = layout
        self._verdicts.clear()
        self._looked_at[:] = 0

    def mismatch(self, member: Member) -> str | None:
        """Why a client can have no work of this study, in words; None when it can. Looked at once a session."""
        session, verdict = self._verdicts.get(member.name, ("", None))
        if session != member.session_id:
            verdict = self._compared(member)
            self._verdicts[member.name] = (member.session_id, verdict)
        return verdict

    def _compared(self, member: Member) -> str | None:
        if member.task != self._spec.task:
            return f"study {self._spec.name} trains task {self._spec.task} and this client serves {member.task}"
        difference = self._layout.difference(member.manifest) if self._layout else None
        if difference:
            return f"study {self._spec.name}'s model of task {member.task} is another one: here {difference}"
        return None

    def select(self, run: Run, arm: Arm, attempt: int) -> Selection:
        """The cohort that trains. Every trial sees the same draws, so that trials are compared on the same clients.

        The clients of an arm's evaluation cohort are left out where others suffice, unless it is the whole study's.

        Args:
            run: What is trained.
            arm: How, and how many are wanted.
            attempt: The round's attempt.
        """
        rng = rng_of(self._spec.seed, "select", run.rounds, attempt)
        rows = self._free_rows(run, arm)
        share = self._share()
        if self._spec.parallel_trials > 1 and len(rows) > share:
            rows = rows[np.sort(rng.choice(len(rows), share, replace=False))]
        draw = (arm.cohort, run.rounds, attempt)
        context = self._context(run, attempt, rng, self._spec.over_selection, self._history.earlier(draw))
        selection = self._selector.select(self._candidates(rows, run, arm), self.wanted(run, arm), context)
        self._history.drawn(draw, selection.cohort)
        if arm.cohort:  # one of several that are compared: who is late in one would be missing in its next cohort only
            return replace(selection, newcomers=(), open_end=False)
        return selection

    def choose(self, run: Run, arm: Arm, places: int, number: int, without: Collection[str]) -> tuple[str, ...]:
        """The clients for places that became free in a buffered round; fewer where there are no more.

        Args:
            run: What is trained.
            arm: How.
            places: At least one.
            number: Of the choice, among those of this model.
            without: Who is not asked.
        """
        rows = self._free_rows(run, arm)
        rows = rows[~np.isin(rows, [self._fleet.member(name).row for name in without])]
        if not len(rows):
            return ()
        rng = rng_of(self._spec.seed, "choose", run.rounds, number)
        context = self._context(run, 1, rng, 1.0, ())
        return self._selector.select(self._candidates(rows, run, arm), min(places, len(rows)), context).cohort

    def count_draw(self, run: Run, arm: Arm, attempt: int) -> None:
        """A buffered round is one draw, however many choices it is made of: that is what turns are counted in."""
        self._history.drawn((arm.cohort, run.rounds, attempt), ())

    def places(self, run: Run, arm: Arm) -> int:
        """How many clients of a buffered round are at work at the same time."""
        share, wanted = self._share(), self.wanted(run, arm)
        return min(share, math.ceil(wanted * self._spec.over_selection)) if wanted else share

    def _free_rows(self, run: Run, arm: Arm) -> Rows:
        there = self._matching()
        free = there & ~self._fleet.roll.busy[: len(there)]
        if arm.measured and arm.cohort:
            free &= self._apart(there, self.wanted(run, arm), arm.cohort)
        return self._by_name(free)

    def _context(
        self, run: Run, attempt: int, rng: np.random.Generator, over_selection: float, earlier: tuple[str, ...]
    ) -> SelectionContext:
        return SelectionContext(
            trial=run.trial,
            round=run.rounds,
            rng=rng,
            over_selection=over_selection,
            deadline_s=self.deadline_s(run),
            attempt=attempt,
            clients=self.count(),
            draws=self._history.draws,
            earlier=earlier,
        )

    def deadline_s(self, run: Run) -> float:
        """When a round ends at the latest, in seconds after its dispatch."""
        return float(run.hyperparameters.get("deadline_s") or self._spec.round.deadline.total_seconds())

    def _candidates(self, rows: Rows, run: Run, arm: Arm) -> Candidates:
        samples = self._fleet.roll.train_samples[rows]
        steps = steps_of(samples, run.hyperparameters, arm.max_steps)
        predicted = self._paces.predict(rows, steps, int(run.hyperparameters["batch_size"]), run.manifest)
        return priced(self._unpriced(rows), steps, predicted)

    def _unpriced(self, rows: Rows) -> Candidates:
        """Candidates of whose work nothing is said yet."""
        roll = self._fleet.roll
        unknown = np.full(len(rows), np.nan)
        return Candidates(
            names=roll.names[rows],
            keys=roll.keys[rows],
            train_samples=roll.train_samples[rows],
            validation_samples=roll.validation_samples[rows],
            steps=np.ones(len(rows), np.int64),
            log_time=unknown,
            log_time_sd=unknown,
            step_s=unknown,
            beside_s=unknown,
            **self._history.columns(rows),
        )

    def prices(self, task: Task, experience: Experience) -> PriceList | None:
        """What rounds are expected to take, as it stands now; None while nobody is there.

        Args:
            task: The study's.
            experience: What they took so far.
        """
        there = self._in_time()
        every = self._by_name(there)
        if self._layout is None or not len(every):
            return None
        # Evenly by name: names say nothing of how fast a client is.
        rows = every[np.linspace(0, len(every) - 1, min(len(every), MOST_CLIENTS)).astype(np.intp)]
        run_round = SelectionContext(
            trial=0,
            round=0,
            rng=np.random.default_rng(0),
            over_selection=self._spec.over_selection,
            deadline_s=self._spec.round.deadline.total_seconds(),
            clients=len(rows),
            draws=self._history.draws,
        )
        share = self._share()
        spec, size = self._spec, self._spec.round.cohort_size

        def wanted(values: Hyperparameters) -> int:
            return min(int(values.get("cohort_size") or size) or share, share)

        return PriceList(
            resolve=lambda point: resolve(spec, task, point),
            wanted=wanted,
            selector=copy.deepcopy(self._selector),
            candidates=self._unpriced(rows),
            paces=self._paces.of(rows),
            manifest=self._layout,
            context=run_round,
            share=len(every) / len(rows),
            factor=experience.factor,
            measure_s=experience.measure_s,
        )

    def observe(
        self, record: RoundRecord, assignments: Sequence[AssignmentRecord], late: Sequence[TakenLate] = ()
    ) -> None:
        """Takes in a round that was trained, and the late updates that it took, before the next one is drawn."""
        self.take_in(round_seen(record, assignments, late))

    def take_in(self, seen: RoundSeen) -> None:
        """The same, as a selector is told of it."""
        self._history.observe(seen)
        self._selector.observe(seen)

    def recall(
        self,
        rounds: Iterable[RoundRecord],
        assignments: Iterable[AssignmentRecord],
        cohorts: Mapping[int, int],
        late: Iterable[TakenLate] = (),
    ) -> None:
        """Takes in all rounds of earlier lives of the coordinator, in the order of their ends.

        Args:
            rounds: Committed ones.
            assignments: Theirs.
            cohorts: The number of each trial's evaluation cohort, which arms that are compared share.
            late: Every late update that was taken.
        """
        late_in: defaultdict[tuple[int, int], list[TakenLate]] = defaultdict(list)
        for taken in late:
            late_in[taken.trial, taken.taken_in].append(taken)
        by_round: defaultdict[tuple[int, int], list[AssignmentRecord]] = defaultdict(list)
        for assignment in assignments:
            if assignment.work == Work.TRAIN:
                by_round[assignment.trial, assignment.round].append(assignment)
        for record in sorted(rounds, key=lambda record: (record.ended_at, record.trial, record.round)):
            parts = by_round[record.trial, record.round]
            for attempt in range(1, record.attempts):
                asked = tuple(part.client for part in parts if part.attempt == attempt)
                self._history.drawn((cohorts[record.trial], record.round, attempt), asked)
            self._history.drawn((cohorts[record.trial], record.round, record.attempts), record.cohort)
            self.observe(record, parts, late_in[record.trial, record.round])

    def _apart(self, there: NDArray[np.bool_], wanted: int, cohort: int) -> NDArray[np.bool_]:
        """Who trains for a generation: those who do not measure it, and of these the last ones where others are few.

        It is the same for all of its arms, whoever is busy.
        """
        evaluators = self.evaluators(cohort)
        others = there.copy()
        others[[self._fleet.member(name).row for name in evaluators]] = False
        cohorts = math.ceil(wanted * self._spec.over_selection) * self._spec.parallel_trials
        missing = (cohorts or int(np.count_nonzero(there))) - int(np.count_nonzero(others))
        if missing > 0:
            others[[self._fleet.member(name).row for name in evaluators[-missing:]]] = True
        return others

    def evaluators(self, cohort: int = 0) -> tuple[str, ...]:
        """A cohort that evaluates, the same for all that are compared.

        Args:
            cohort: Which one; each number draws another.
        """
        there = self._matching()
        there &= self._fleet.roll.validation_samples[: len(there)] > 0
        names, size = self._fleet.roll.names[: len(there)], self._spec.evaluation.cohort_size
        return self._ranks.cohort(names, np.flatnonzero(there), size, self._rank_seed(cohort))

    async def _rank(self, cohort: int) -> None:
        """Works out the ranks that `evaluators` will ask for, a part at a time."""
        roll, seed, more = self._fleet.roll, self._rank_seed(cohort), True
        while more:
            more = self._ranks.hash_some(roll.names[: len(roll)], seed, HASHED_AT_ONCE)
            if more:
                await asyncio.sleep(0)

    def _rank_seed(self, cohort: int) -> int:
        return seed_of(self._spec.seed, "evaluate", cohort) if cohort else self._spec.seed

    def needs_late_clients(self) -> bool:
        """Whether a round could not begin without the clients that are busy with late work.

        It needs `min_clients`, but no more than it asks.
        """
        there = int(np.count_nonzero(self._in_time()))
        least = min(self._spec.round.min_clients, self._spec.round.cohort_size or self._spec.round.min_clients)
        return there < min(least, self.count()) or not there

    def members(self, names: tuple[str, ...]) -> list[Member]:
        """The clients of these names, in their order."""
        return [self._fleet.member(name) for name in names]

    def stop_waiting(self) -> None:
        """Ends `wait`, now and later."""
        self._stopping = True
        self._fleet.wake()

    def _over(self) -> bool:
        """Whether nobody is waited for any more."""
        return self._stopping or self._time_left_s() <= 0

    def _at_most_s(self, wait_s: float) -> float:
        """So long, or until the study's time is used up."""
        return min(wait_s, max(0.0, self._time_left_s()) + _A_MOMENT_S)

    async def wait(self, run: Run, arm: Arm, under_way: bool = False) -> bool:
        """Waits until a round can start, and says who is missing and until when.

        Clients that are there and work for another study are waited for without end: their rounds have deadlines.

        Args:
            run: What will be trained.
            arm: How.
            under_way: Whether clients train for it already, so that none need be free.

        Returns:
            False when the study was stopped meanwhile, or its time is used up.

        Raises:
            UnavailableError: Too few clients came.
        """

        def can_go_on() -> bool:
            return self._over() or under_way or self._free() >= (self.wanted(run, arm) or self._share())

        least = self._spec.round.min_clients
        await self.wait_for(least)
        while not can_go_on():
            await self._fleet.wait_until(can_go_on, self._at_most_s(BUSY_WAIT_S))
            await self.wait_for(least)
        if arm.measured and arm.cohort:
            await self._rank(arm.cohort)
        return not self._over()

    async def wait_for_return(self, names: Collection[str]) -> None:
        """Waits a little for clients that were there before the coordinator was started again."""

        def missing() -> set[str]:
            return set(names).difference(self.names())

        wait_s = self._at_most_s(RETURN_WAIT_S)
        if absent := sorted(missing()):
            text = (
                f"Waiting {seconds_text(wait_s)} for clients that trained before and are not back yet: "
                f"{names_text(absent)}."
            )
            await self._announce(NewEvent("clients_missing", text, {"missing": absent}))
            await self._fleet.wait_until(lambda: self._stopping or not missing(), wait_s)

    async def hear_of(self, members: Sequence[Member]) -> None:
        """Waits until each of these has been heard of again, or its lease has run out and it counts as gone.

        A round of a second misses its quorum three times before anybody knows that a network is down. Clients that
        are there break their silence well within a lease.
        """
        since = [(member, member.heard_at) for member in members]
        for _ in range(60):  # looks; a lease that has run out is found after nine eighths of it
            if self._over() or not any(self._fleet.in_doubt(member, heard_at) for member, heard_at in since):
                return
            await asyncio.sleep(self._fleet.policy.lease.total_seconds() / 48)

    async def wait_for(self, least: int, cohort: int | None = None) -> bool:
        """Waits until so many clients are there, busy ones included.

        Args:
            least: How many.
            cohort: The evaluation cohort that will be asked for, if any.

        Returns:
            False when the study was stopped meanwhile, or its time was used up before they came.

        Raises:
            UnavailableError: Too few clients came.
        """
        longest_s = self._spec.round.wait_for_clients.total_seconds()
        wait_s = self._at_most_s(longest_s)
        wanted = f"{least} client{'s' * (least != 1)}"

        def ready() -> bool:
            return self._stopping or self.count() >= least

        if not ready():
            here = self.names()
            until = (self._clock.now() + timedelta(seconds=wait_s)).strftime("%H:%M:%S UTC")
            until += ", when the study's time is used up," if wait_s < longest_s else ""
            text = (
                f"Waiting until {until} for {wanted} of task {self._spec.task}; here now: {', '.join(here) or 'none'}"
                f"{self._of_the_drained()}."
            )
            await self._announce(
                NewEvent("waiting_for_clients", text, {"needed": least, "here": here, "wait_s": wait_s})
            )
        if not await self._fleet.wait_until(ready, wait_s):
            if self._over():
                return False
            raise UnavailableError(
                f"Only {self.count()} of the {wanted} of task {self._spec.task} that are "
                f"needed came within {wait_s:g} s{self._of_the_drained()}: start more with `fedstep client --task "
                f"{self._spec.task}`."
            )
        if cohort is not None:
            await self._rank(cohort)
        return self.count() >= least

    def _of_the_drained(self) -> str:
        there = self._fitting()
        drained = int(np.count_nonzero(there & self._fleet.roll.drained[: len(there)]))
        return f" ({drained} drained; `fedstep fleet undrain` gives them work again)" if drained else ""

    def wanted(self, run: Run, arm: Arm) -> int:
        """Updates that a round waits for; 0 for everybody's."""
        asked = arm.clients or int(run.hyperparameters.get("cohort_size") or self._spec.round.cohort_size)
        return min(asked, self._share()) if asked else 0

    def _share(self) -> int:
        """Clients that one of the trials trained at once may use; late work is not waited for."""
        return max(1, int(np.count_nonzero(self._in_time())) // self._spec.parallel_trials)

    def _matching(self) -> NDArray[np.bool_]:
        """Who of the roll's rows could train for this study, busy or not."""
        there = self._fitting()
        return there & ~self._fleet.roll.drained[: len(there)]

    def _fitting(self) -> NDArray[np.bool_]:
        """The same, with those that are drained."""
        roll, count = self._fleet.roll, len(self._fleet.roll)
        if len(self._fits) < count:
            self._fits = grown(self._fits, len(roll.names), False)
            self._looked_at = grown(self._looked_at, len(roll.names), 0)
        for row in np.flatnonzero(self._looked_at[:count] != roll.sessions[:count]).tolist():
            self._fits[row] = self.mismatch(self._fleet.at(row)) is None
            self._looked_at[row] = roll.sessions[row]
        there: NDArray[np.bool_] = self._fits[:count] & roll.connected[:count] & (roll.train_samples[:count] > 0)
        return there

    def _in_time(self) -> NDArray[np.bool_]:
        """The same, less those that are busy with late work."""
        there = self._matching()
        return there & ~self._fleet.roll.late[: len(there)]

    def _by_name(self, chosen: NDArray[np.bool_]) -> Rows:
        """The rows that are chosen, in the order of the names."""
        order = self._fleet.roll.by_name
        return order[chosen[order]]

    def names(self) -> list[str]:
        """Who is there for this study, by name."""
        names: list[str] = self._fleet.roll.names[self._by_name(self._matching())].tolist()
        return names

    def count(self) -> int:
        """How many clients are there for this study, busy or not."""
        return int(np.count_nonzero(self._matching()))

    def _free(self) -> int:
        there = self._matching()
        return int(np.count_nonzero(there & ~self._fleet.roll.busy[: len(there)]))
