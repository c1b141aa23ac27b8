"""Who is asked to train, and who evaluates."""

import asyncio
import copy
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.common.task import Task
from fedstep.server.coordination.eligible import Eligible, Marks, Rows
from fedstep.server.coordination.fleet import Fleet, Member
from fedstep.server.coordination.history import Draw, History, round_seen
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.outcome import Work
from fedstep.server.coordination.pacing import PaceBook, steps_of
from fedstep.server.coordination.pricing import MOST_CLIENTS, Experience, PriceList, priced
from fedstep.server.coordination.run import Run, resolve, rng_of, seed_of
from fedstep.server.coordination.waiting import Waiting
from fedstep.server.selection.base import Candidates, RoundSeen, Selection, SelectionContext, Selector
from fedstep.server.selection.evaluation import Ranks
from fedstep.server.selection.pace import quantile_s
from fedstep.server.storage.base import AssignmentRecord, RoundRecord
from fedstep.server.tuning.base import Arm

HASHED_AT_ONCE = 5_000
"""Names whose ranks are worked out before the event loop has its turn again: a few milliseconds."""

_ROOM = 2
"""So many cohorts are to choose from, for those who train apart from who measures."""

_OTHERS = 20
"""So many are asked at least where all who were asked before could not measure."""

_SURE = 0.9
"""Which quantile of a client's time is what it is expected to take at the most."""


class Cohorts:
    """The cohorts of one study.

    Args:
        spec: The study.
        fleet: Who is there.
        paces: How fast they are.
        selector: Chooses among those who can train.
        eligible: Who of the fleet can.
        waiting: For them.
    """

    def __init__(
        self,
        spec: StudySpec,
        fleet: Fleet,
        paces: PaceBook,
        selector: Selector,
        eligible: Eligible,
        waiting: Waiting,
    ) -> None:
        self._spec = spec
        self._fleet = fleet
        self._paces = paces
        self._selector = selector
        self._eligible = eligible
        self._waiting = waiting
        self._history = History(fleet.roll)
        self._ranks = Ranks()

    def select(self, run: Run, arm: Arm, attempt: int, takes_late: bool = True) -> Selection:
        """The cohort that trains. Every trial sees the same draws, so that trials are compared on the same clients.

        The clients of an arm's evaluation cohort are left out where others suffice, unless it is the whole study's.
        Those of them who have not trained for so long that they have to are not.

        Args:
            run: What is trained.
            arm: How, and how many are wanted.
            attempt: The round's attempt.
            takes_late: Whether a later round takes what comes after this one's end.
        """
        rng = rng_of(self._spec.seed, "select", run.rounds, attempt)
        earlier = self.earlier(run, arm, attempt)
        rows = self._free_rows(run, arm, earlier)
        share = self._share()
        if self._spec.parallel_trials > 1 and len(rows) > share:
            rows = rows[np.sort(rng.choice(len(rows), share, replace=False))]
        draw = (arm.cohort, run.rounds, attempt)
        context = replace(
            self._context(run, attempt, rng, self._spec.over_selection, earlier),
            takes_late=takes_late,
            waited_for=self._history.waited_for(draw),
        )
        selection = self._selector.select(self._candidates(rows, run, arm), self.wanted(run, arm), context)
        self._history.drawn(draw, selection.cohort, selection.waited_for)
        if arm.cohort and not arm.alone:  # who is late in one of several would be missing in its next cohort only
            return replace(selection, newcomers=(), open_end=False)
        return selection

    def earlier(self, run: Run, arm: Arm, attempt: int) -> tuple[str, ...]:
        """Who was asked when this round was drawn for another arm that this one is compared with; () for the first."""
        return self._history.earlier((arm.cohort, run.rounds, attempt))

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

    def _free_rows(self, run: Run, arm: Arm, earlier: Collection[str] = ()) -> Rows:
        free = self._eligible.free()
        if arm.measured and arm.cohort:
            free &= self._apart(self._eligible.there(), self.wanted(run, arm), arm.cohort, earlier)
        return self._eligible.by_name(free)

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
            clients=self._eligible.count(),
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
        there = self._eligible.in_time()
        every = self._eligible.by_name(there)
        if self._eligible.layout is None or not len(every):
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
            manifest=self._eligible.layout,
            context=run_round,
            share=len(every) / len(rows),
            factor=experience.factor,
            measure_s=experience.measure_s,
        )

    def observe(
        self,
        record: RoundRecord,
        assignments: Sequence[AssignmentRecord],
        late: Sequence[TakenLate] = (),
        cohort: int = 0,
    ) -> None:
        """Takes in a round that was trained, before the next one is drawn.

        Args:
            record: The round.
            assignments: Everybody's part in it.
            late: The late updates that it took.
            cohort: The number of its arm's evaluation cohort.
        """
        self.take_in(round_seen(record, assignments, late), (cohort, record.round, record.attempts))

    def take_in(self, seen: RoundSeen, draw: Draw | None = None) -> None:
        """The same, as a selector is told of it."""
        self._history.observe(seen, draw)
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
            self.observe(record, parts, late_in[record.trial, record.round], cohorts[record.trial])

    def _apart(self, there: Marks, wanted: int, cohort: int, earlier: Collection[str]) -> Marks:
        """Who trains for a generation: those who do not measure it, and of these the last ones where others are few.

        Others are few where they are under two cohorts, or under half of who is there: every round of a leg would train
        the same clients, whatever the selector. It is the same for all of its arms, whoever is busy: who has to train,
        and was asked to for the first of them, may do so in the others.
        """
        evaluators = self.evaluators(cohort)
        measuring = np.array([self._fleet.member(name).row for name in evaluators], np.intp)
        after = self._selector.has_to_train_after(int(np.count_nonzero(there)), wanted or 1)
        has_to_train = self._history.columns(measuring)["waited"] >= after if after else np.zeros(len(measuring), bool)
        may_train = has_to_train | np.isin(np.array(evaluators, object), [*earlier])
        others = there.copy()
        others[measuring[~may_train]] = False
        cohorts, everybody = math.ceil(wanted * self._spec.over_selection), int(np.count_nonzero(there))
        room = max(_ROOM * cohorts * self._spec.parallel_trials, -(-everybody // 2)) if wanted else everybody
        missing = room - int(np.count_nonzero(others))
        if missing > 0:
            others[[self._fleet.member(name).row for name in evaluators[-missing:]]] = True
        return others

    def evaluators(self, cohort: int = 0, without: Collection[str] = ()) -> tuple[str, ...]:
        """A cohort that evaluates, the same for all that are compared.

        Args:
            cohort: Which one; each number draws another.
            without: Names of clients that are not asked again; of others as many as find one who can, then.
        """
        there = self._eligible.there()
        there &= self._fleet.roll.validation_samples[: len(there)] > 0
        there[[self._fleet.member(name).row for name in without]] = False
        names, size = self._fleet.roll.names[: len(there)], self._spec.evaluation.cohort_size
        size = max(size, _OTHERS) if size and without else size
        return self._ranks.cohort(names, np.flatnonzero(there), size, self._rank_seed(cohort))

    def measuring_s(self, cohort: Sequence[str], run: Run) -> dict[str, float]:
        """Seconds that a measurement is expected to take at the most, by name; of whom it is known.

        A step of training takes longer than measuring as many samples does, and an update longer than a few numbers.
        """
        rows = np.array([self._fleet.member(name).row for name in cohort], np.intp)
        batch_size = int(run.hyperparameters["batch_size"])
        steps = np.maximum(1, -(-self._fleet.roll.validation_samples[rows] // batch_size))
        predicted = self._paces.predict(rows, steps, batch_size, run.manifest)
        took_s = quantile_s(predicted.log_time, predicted.log_time_sd, _SURE)
        return {name: float(s) for name, s in zip(cohort, took_s, strict=True) if math.isfinite(s)}

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
        there = int(np.count_nonzero(self._eligible.in_time()))
        least = min(self._spec.round.min_clients, self._spec.round.cohort_size or self._spec.round.min_clients)
        return there < min(least, self._eligible.count()) or not there

    def members(self, names: tuple[str, ...]) -> list[Member]:
        """The clients of these names, in their order."""
        return [self._fleet.member(name) for name in names]

    async def wait(self, run: Run, arm: Arm, under_way: bool = False) -> bool:
        """Waits until a round can start.

        Args:
            run: What will be trained.
            arm: How.
            under_way: Whether clients train for it already, so that none need be free.

        Returns:
            False when the study was stopped meanwhile, or its time is used up.

        Raises:
            UnavailableError: Too few clients came.
        """

        def can_start() -> bool:
            free = int(np.count_nonzero(self._eligible.free()))
            return under_way or free >= (self.wanted(run, arm) or self._share())

        await self._waiting.until(can_start, self._spec.round.min_clients)
        if arm.measured and arm.cohort:
            await self._rank(arm.cohort)
        return not self._waiting.over

    async def wait_to_measure(self, cohort: int, least: int = 1) -> bool:
        """Waits until somebody is there who can measure.

        Args:
            cohort: The evaluation cohort that will be asked for.
            least: How many have to be there.

        Returns:
            False when the study was stopped meanwhile, or its time was used up before anybody came.

        Raises:
            UnavailableError: Nobody came.
        """
        if not await self._waiting.for_clients(least):
            return False
        await self._rank(cohort)
        return True

    def wanted(self, run: Run, arm: Arm) -> int:
        """Updates that a round waits for; 0 for everybody's."""
        asked = arm.clients or int(run.hyperparameters.get("cohort_size") or self._spec.round.cohort_size)
        return min(asked, self._share()) if asked else 0

    def _share(self) -> int:
        """Clients that one of the trials trained at once may use; late work is not waited for."""
        return max(1, int(np.count_nonzero(self._eligible.in_time())) // self._spec.parallel_trials)
