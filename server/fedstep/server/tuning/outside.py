"""The tuner that decides nothing: a program outside opens runs, steps, forks and rewinds them.

Every step is an arm whose parent is the arm that its run stands on. So a step is committed, resumed, measured and
told like any other arm, and forking and rewinding only move names.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fedstep.common.errors import (
    AlreadyExistsError,
    FedstepError,
    FieldViolation,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
)
from fedstep.common.hyperparameters import Hyperparameters, describe
from fedstep.common.spec import PositiveDuration, StudySpec
from fedstep.common.validation import join, one_of, sentences
from fedstep.server.tuning.base import Arm, Decision, Note, Observation, ProposeContext, Tuner
from fedstep.server.tuning.outside_runs import Asked, OutsideRun, Stand, from_json, to_json
from fedstep.server.tuning.verdict import unpruned

NAME = "outside"
"""As a study names it."""

BACK_AFTER = timedelta(seconds=30)
"""A coordinator that was started again waits at least so long: whoever steps the runs must find it first."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class OutsideOptions(BaseModel):
    """What a study file may say of it.

    Attributes:
        close_after: The study ends when nobody has opened, stepped, forked, restored or closed a run for so long.
        keep_steps: The latest steps of a run that it can be restored to and forked from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    close_after: PositiveDuration = timedelta(minutes=10)
    keep_steps: int = Field(default=10, strict=True, ge=1, le=1000)

    def check(self, spec: StudySpec) -> None:
        """Raises where the study has no bound: the tuner has none of its own.

        Raises:
            InvalidInputError: Its budget has neither rounds, client-rounds, bytes nor time.
        """
        budget = spec.budget
        if not (budget.rounds or budget.client_rounds or budget.payload_bytes or budget.time):
            text = "is missing: with the tuner outside, say how much may be asked for, in rounds (or in client_rounds, "
            raise _refused(InvalidInputError, "budget.rounds", text + "payload_bytes or time).")


class OutsideTuner(Tuner):
    """Proposes what it is asked for. `open`, `fork`, `move`, `close` and `ask` are called as `propose` is."""

    per_trial = False

    def __init__(self, spec: StudySpec, options: OutsideOptions) -> None:
        self._spec = spec
        self._options = options
        self._runs: dict[str, OutsideRun] = {}
        self._kept: frozenset[int] = frozenset()
        self._trained_by: dict[int, str] = {}
        self._notes: list[Note] = []
        self._turns = 0
        self._quiet_since: datetime | None = None
        self._earliest: datetime | None = None
        self._restored = False

    # what is asked from outside -----------------------------------------------------------------------------------

    def open(self, name: str) -> str:
        """A run from the study's initial model; "" for a name of the tuner's. Answers with its name.

        Raises:
            InvalidInputError: That is no name.
            AlreadyExistsError: It is the name of a fork.
        """
        return self._add(name, None, "run")

    def fork(self, name: str, step: int | None, new: str) -> str:
        """A run from where another one stood; None for where it stands. Answers with its name.

        Raises:
            InvalidInputError: That is no name.
            NotFoundError: There is no such run.
            PreconditionError: The run is closed, or where it stood is not kept.
            AlreadyExistsError: The new name is another run's.
        """
        source = self._open_run(name, "run")
        return self._add(new, self._kept_stand(source, source.step if step is None else step).arm, "new_run")

    def move(self, name: str, step: int, source: str) -> None:
        """Puts a run where it stood; or where another run did, which is a step of its own.

        Raises:
            NotFoundError: There is no such run.
            PreconditionError: It is closed or being stepped, or where it stood is not kept.
        """
        run = self._open_run(name, "run")
        if run.asked is not None:
            raise _refused(
                PreconditionError, "run", f"{name} is being stepped: restore it when step {run.asked.step} is done."
            )
        if not source or source == name:
            self._put(replace(run, step=self._kept_stand(run, step).step))
            return
        stand = self._kept_stand(self._open_run(source, "source_run"), step)
        self._put(run.moved(Stand(run.next_step, stand.arm), self._options.keep_steps))

    def close_run(self, name: str) -> None:
        """Lets go of a run; a step under way ends with the round that it is in.

        Raises:
            NotFoundError: There is no such run.
        """
        self._put(replace(self._run(name, "run"), closed=True))

    def ask(self, name: str, step: int, hyperparameters: Hyperparameters, rounds: int) -> int:
        """Asks for a step, which becomes an arm; answers with its number.

        Args:
            name: The run.
            step: The run's next step, or one that was asked before, which changes nothing; 0 for the next one.
            hyperparameters: A point of the space.
            rounds: At least 1.

        Raises:
            NotFoundError: There is no such run.
            InvalidInputError: That is no point of the space, or the rounds are more than the study's budget.
            PreconditionError: The run is closed, another step of it is under way, or it is not this step's turn.
            AlreadyExistsError: The step under way was asked with other words.
        """
        run = self._run(name, "run")
        hyperparameters = self._spec.space.in_own_types(hyperparameters)
        if 0 < step < run.next_step:
            return self._asked_before(run, step, hyperparameters, rounds)
        if run.closed:
            raise _closed(run, "run")
        if run.asked is not None:
            text = f"{name} is being stepped: ask again when step {run.asked.step} is done, or ask for that one."
            raise _refused(PreconditionError, "run", text)
        if step > run.next_step:
            text = f"is {step}, and the next step of {name} is {run.next_step}: ask for that one."
            raise _refused(PreconditionError, "step", text)
        self._check_point(hyperparameters)
        most = self._spec.budget.rounds
        if most and rounds > most:
            text = f"is {rounds}, and the study's budget is {most} in all: ask for fewer."
            raise _refused(InvalidInputError, "rounds", text)
        self._turns += 1
        asked = Asked(run.next_step, self._turns, dict(hyperparameters), rounds)
        self._put(replace(run, asked=asked, next_step=run.next_step + 1))
        return asked.step

    def heard(self, now: datetime) -> None:
        """Somebody outside has asked something."""
        self._quiet_since = now

    def find(self, name: str) -> OutsideRun | None:
        """A run as it stands."""
        return self._runs.get(name)

    # the contract -------------------------------------------------------------------------------------------------

    def propose(self, context: ProposeContext) -> list[Arm]:
        """The steps that were asked for and are not out yet, in the order of asking."""
        waiting = [
            (run, run.asked)
            for run in self._runs.values()
            if run.asked is not None and (run.asked.arm is None or run.asked.arm >= context.next_number)
        ]
        waiting.sort(key=lambda pair: pair[1].turn)
        arms = []
        for number, (run, asked) in zip(itertools.count(context.next_number), waiting[: context.slots]):
            self._put(replace(run, asked=replace(asked, arm=number)))
            self._tell_source(run, number, asked)
            parents = () if run.arm is None else (run.arm,)
            arms.append(
                Arm(number, asked.hyperparameters, parents=parents, rounds=asked.rounds, phase=phase_of(run.name))
            )
        return arms

    def observe(self, observation: Observation) -> Decision:
        """Lets every arm train to its end, unless its run is closed meanwhile; its run stands there then."""
        decision = unpruned(observation)
        mine = [run for run in self._runs.values() if run.asked and run.asked.arm == observation.number]
        if decision is Decision.CONTINUE and any(run.closed for run in mine):
            decision = Decision.PRUNE
        if decision is not Decision.CONTINUE:
            self._quiet_since = None  # from when it is asked next how long it waits
            for run in mine:
                self._trained_by[observation.number] = run.name
                stand = Stand(run.asked.step if run.asked else 0, observation.number, bool(observation.failed))
                self._put(run.moved(stand, self._options.keep_steps))
        return decision

    def waits_until(self, now: datetime) -> datetime | None:
        """The stated time after the last that was heard of whoever steps the runs."""
        if self._restored:
            self._restored, self._earliest = False, now + min(BACK_AFTER, self._options.close_after)
        if self._quiet_since is None:
            self._quiet_since = now
        until = self._quiet_since + self._options.close_after
        return max(until, self._earliest) if self._earliest is not None else until

    def keeps(self) -> set[int]:
        """The arms that runs stand on, or can go back to."""
        return set(self._kept)

    def notes(self) -> list[Note]:
        """See `Tuner.notes`: which runs went on from another one's model."""
        notes, self._notes = self._notes, []
        return notes

    def state(self) -> dict[str, Any]:
        """Every run by name, and whose each model is that is kept."""
        state: dict[str, Any] = {"keeps": sorted(self._kept), "runs": to_json(self._runs), "turns": self._turns}
        state["trained_by"] = {str(arm): self._trained_by[arm] for arm in sorted(self._kept & self._trained_by.keys())}
        if self._quiet_since is not None:
            state["quiet_since"] = self._quiet_since.isoformat()
        return state

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Goes on with the runs; a step whose arm was lost in a crash becomes another one."""
        under_way = {arm.number for arm in open_arms}
        self._restored = True
        self._turns = state.get("turns", 0)
        self._trained_by = {int(arm): run for arm, run in state.get("trained_by", {}).items()}
        self._quiet_since = datetime.fromisoformat(state["quiet_since"]) if "quiet_since" in state else None
        for run in from_json(state.get("runs", {})).values():
            asked = run.asked
            if asked is not None and asked.arm not in under_way:
                run = replace(run, asked=replace(asked, arm=None))
            self._put(run)

    # inside -------------------------------------------------------------------------------------------------------

    def _tell_source(self, run: OutsideRun, number: int, asked: Asked) -> None:
        """A step from another run's model is a decision of whoever steps the runs."""
        source = self._trained_by.get(run.arm, run.name) if run.arm is not None else run.name
        if source != run.name:
            text = f"Run {run.name} goes on from run {source}'s model with {describe(asked.hyperparameters)}."
            details = {"run": run.name, "source": source, "arms": [number, run.arm]}
            self._notes.append(Note("exploitation", text, details))

    def _put(self, run: OutsideRun) -> None:
        self._runs[run.name] = run
        self._kept = frozenset().union(*(other.needs() for other in self._runs.values()))

    def _add(self, name: str, arm: int | None, field: str) -> str:
        if not name:
            name = next(name for n in itertools.count(len(self._runs)) if (name := f"run-{n}") not in self._runs)
        elif not _NAME.fullmatch(name):
            text = (
                f"is {name!r:.80}: letters, digits, -, _ and ., at most 64, the first a letter or a digit; rename it."
            )
            raise _refused(InvalidInputError, field, text)
        found = self._runs.get(name)
        if found is None:
            self._put(OutsideRun.from_arm(name, arm))
        elif found.origin != arm:
            raise _refused(AlreadyExistsError, field, f"{name} is a run that began elsewhere: take another name.")
        return name

    def _run(self, name: str, field: str) -> OutsideRun:
        found = self._runs.get(name)
        if found is None:
            raise no_run(self._spec.name, name, self._runs, field)
        return found

    def _open_run(self, name: str, field: str) -> OutsideRun:
        run = self._run(name, field)
        if run.closed:
            raise _closed(run, field)
        return run

    def _kept_stand(self, run: OutsideRun, step: int) -> Stand:
        stand = run.stand(step)
        if stand is not None and not stand.failed:
            return stand
        kept = ", ".join(map(str, run.kept_steps))
        why = "failed" if stand is not None else "is not kept"
        text = f"step {step} of {run.name} {why}: kept are {kept}; tuner.keep_steps says how many."
        raise _refused(PreconditionError, "step", text)

    def _asked_before(self, run: OutsideRun, step: int, hyperparameters: Hyperparameters, rounds: int) -> int:
        asked = run.asked
        if asked is not None and asked.step == step:
            if (asked.hyperparameters, asked.rounds) != (dict(hyperparameters), rounds):
                text = f"{step} of {run.name} was asked with other hyper-parameters or rounds, and is under way."
                raise _refused(AlreadyExistsError, "step", text)
        elif run.stand(step) is None:
            text = f"{step} of {run.name} is long done and not kept: its next step is {run.next_step}."
            raise _refused(PreconditionError, "step", text)
        return step

    def _check_point(self, hyperparameters: Hyperparameters) -> None:
        try:
            self._spec.space.validate_point(hyperparameters)
        except InvalidInputError as error:
            faults = [FieldViolation(join("hyperparameters", v.field), v.description) for v in error.violations]
            raise InvalidInputError(sentences(faults), faults) from None


def phase_of(name: str) -> str:
    """What the arms of a run are for, as people read it."""
    return f"run {name}"


def no_run(study: str, name: str, runs: Iterable[str], field: str = "run", over: str = "") -> FedstepError:
    """There is no run of that name; in a study that is `over`, such as "stopped", none can be opened either."""
    names = list(runs)
    fix = f"it is {over}; create another study." if over else "open one."
    text = f"the study {study} has no run {name!r:.80}: {one_of(name, names) if names else fix}"
    return _refused(NotFoundError, field, text)


def _closed(run: OutsideRun, field: str) -> FedstepError:
    return _refused(PreconditionError, field, f"{run.name} is closed: open or fork another one.")


def _refused(kind: type[FedstepError], field: str, text: str) -> FedstepError:
    return kind(f"{field}: {text}", [FieldViolation(field, text)])
