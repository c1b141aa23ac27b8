"""Who can train, who is asked, and who evaluates."""

import math
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

from fedstep.common.clock import Clock
from fedstep.common.errors import UnavailableError
from fedstep.common.spec import StudySpec
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.fleet import Fleet, Member, Presence
from fedstep.server.coordination.run import Run, rng_of, seed_of
from fedstep.server.selection.base import Candidate, Selection, SelectionContext, Selector
from fedstep.server.selection.evaluation import evaluation_cohort
from fedstep.server.storage.base import NewEvent

BUSY_WAIT_S = 5.0
"""How often it is looked again who is there, while clients are busy."""

RETURN_WAIT_S = 8.0
"""Clients that lost their coordinator try again every five seconds or sooner."""

Announce = Callable[[NewEvent], Awaitable[None]]
"""Tells a study's watchers something that cannot wait for a round's commit."""


class Cohorts:
    """The clients of one study.

    Args:
        spec: The study.
        fleet: Who is there.
        selector: Chooses among those who can train.
        clock: For people, who are told until when clients are waited for.
        announce: For what cannot wait.
    """

    def __init__(self, spec: StudySpec, fleet: Fleet, selector: Selector, clock: Clock, announce: Announce) -> None:
        self._spec = spec
        self._fleet = fleet
        self._selector = selector
        self._clock = clock
        self._announce = announce
        self._layout: Manifest | None = None
        self._verdicts: dict[str, tuple[str, str | None]] = {}
        self._stopping = False

    def compare_with(self, layout: Manifest) -> None:
        """From now on a client's model must have this layout at its default hyper-parameters."""
        self._layout = layout
        self._verdicts.clear()

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

    def select(self, run: Run, attempt: int, clients: int = 0, cohort: int = 0) -> Selection:
        """The cohort that trains. Every trial sees the same draws, so that trials are compared on the same clients.

        Args:
            run: What is trained.
            attempt: The round's attempt.
            clients: How many are wanted; 0 for the study's own number.
            cohort: The evaluation cohort that will measure the arm, which is left out where others suffice; 0 for
                that of the whole study, which trains as well.
        """
        rng = rng_of(self._spec.seed, "select", run.rounds, attempt)
        free = self._free()
        if cohort:
            apart = self._apart(self._wanted(run, clients), cohort)
            free = [member for member in free if member.name in apart]
        share = self._share()
        if self._spec.parallel_trials > 1 and len(free) > share:
            free = [free[i] for i in sorted(rng.choice(len(free), share, replace=False))]
        context = SelectionContext(
            trial=run.trial,
            round=run.rounds,
            rng=rng,
            over_selection=self._spec.round.over_selection,
            deadline_s=float(run.hyperparameters.get("deadline_s") or self._spec.round.deadline.total_seconds()),
        )
        candidates = [Candidate(m.name, m.train_samples, m.updates_accepted) for m in free]
        return self._selector.select(candidates, self._wanted(run, clients), context)

    def _apart(self, wanted: int, cohort: int) -> set[str]:
        """Who trains for a generation: those who do not measure it, and of these the last ones where others are few.

        It is the same for all of its arms, whoever is busy.
        """
        evaluators = self.evaluators(cohort)
        names = {member.name for member in self._matching()}
        others = names.difference(evaluators)
        cohorts = math.ceil(wanted * self._spec.round.over_selection) * self._spec.parallel_trials
        missing = (cohorts or len(names)) - len(others)
        return others.union(evaluators[-missing:]) if missing > 0 else others

    def evaluators(self, cohort: int = 0) -> tuple[str, ...]:
        """A cohort that evaluates, the same for all that are compared.

        Args:
            cohort: Which one; each number draws another.
        """
        names = [member.name for member in self._matching() if member.validation_samples > 0]
        seed = seed_of(self._spec.seed, "evaluate", cohort) if cohort else self._spec.seed
        return evaluation_cohort(names, self._spec.evaluation.cohort_size, seed)

    def needs_late_clients(self) -> bool:
        """Whether a round could not begin without the clients that are busy with late work."""
        matching = self._matching()
        there = sum(not member.late for member in matching)
        return there < min(self._spec.round.min_clients, len(matching)) or not there

    def members(self, names: tuple[str, ...]) -> list[Member]:
        """The clients of these names, in their order."""
        known = {member.name: member for member in self._fleet.members()}
        return [known[name] for name in names]

    def stop_waiting(self) -> None:
        """Ends `wait`, now and later."""
        self._stopping = True
        self._fleet.wake()

    async def wait(self, run: Run, clients: int = 0) -> bool:
        """Waits until a round can start, and says who is missing and until when.

        Clients that are there and work for another study are waited for without end: their rounds have deadlines.

        Returns:
            False when the study was stopped meanwhile.

        Raises:
            UnavailableError: Too few clients came.
        """

        def can_go_on() -> bool:
            return self._stopping or len(self._free()) >= (self._wanted(run, clients) or self._share())

        least = self._spec.round.min_clients
        await self.wait_for(least)
        while not can_go_on():
            await self._fleet.wait_until(can_go_on, BUSY_WAIT_S)
            await self.wait_for(least)
        return not self._stopping

    async def wait_for_return(self, names: Collection[str]) -> None:
        """Waits a little for clients that were there before the coordinator was started again."""

        def missing() -> set[str]:
            return set(names).difference(member.name for member in self._matching())

        if absent := sorted(missing()):
            text = (
                f"Waiting {RETURN_WAIT_S:g} s for clients that trained before and are not back yet: "
                f"{', '.join(absent[:8])}{' and others' * (len(absent) > 8)}."
            )
            await self._announce(NewEvent("clients_missing", text, {"missing": absent}))
            await self._fleet.wait_until(lambda: self._stopping or not missing(), RETURN_WAIT_S)

    async def wait_for(self, least: int) -> bool:
        """Waits until so many clients are there, busy ones included.

        Returns:
            False when the study was stopped meanwhile.

        Raises:
            UnavailableError: Too few clients came.
        """
        wait_s = self._spec.round.wait_for_clients.total_seconds()
        wanted = f"{least} client{'s' * (least != 1)}"

        def ready() -> bool:
            return self._stopping or len(self._matching()) >= least

        if not ready():
            here = [member.name for member in self._matching()]
            until = (self._clock.now() + timedelta(seconds=wait_s)).strftime("%H:%M:%S UTC")
            text = (
                f"Waiting until {until} for {wanted} of task {self._spec.task}; here now: {', '.join(here) or 'none'}."
            )
            await self._announce(
                NewEvent("waiting_for_clients", text, {"needed": least, "here": here, "wait_s": wait_s})
            )
        if not await self._fleet.wait_until(ready, wait_s):
            raise UnavailableError(
                f"Only {len(self._matching())} of the {wanted} of task {self._spec.task} that are "
                f"needed came within {wait_s:g} s: start more with `fedstep client --task {self._spec.task}`."
            )
        return len(self._matching()) >= least

    def _wanted(self, run: Run, clients: int) -> int:
        asked = clients or int(run.hyperparameters.get("cohort_size") or self._spec.round.cohort_size)
        return min(asked, self._share()) if asked else 0

    def _share(self) -> int:
        """Clients that one of the trials trained at once may use; late work is not waited for."""
        there = sum(not member.late for member in self._matching())
        return max(1, there // self._spec.parallel_trials)

    def _matching(self) -> list[Member]:
        return [
            member
            for member in self._fleet.members()
            if member.presence is Presence.CONNECTED and member.train_samples > 0 and self.mismatch(member) is None
        ]

    def _free(self) -> list[Member]:
        return [member for member in self._matching() if not member.busy]
