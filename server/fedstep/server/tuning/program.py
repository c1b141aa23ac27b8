"""Tuners written as one procedure that is read from top to bottom.

A step-wise method is a long sequence: probe, screen, advance, fork, compare, settle. Written as a state machine its
order is lost. So it is written as a generator that yields arms and is sent what they gave. What it was sent is the
tuner's whole state: after a restart the generator is run again on the same answers, and stands where it stood. It must
therefore draw all its randomness from seeds.
"""

import math
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from fedstep.common.errors import InternalError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import (
    Arm,
    ClientReport,
    Cost,
    Decision,
    Note,
    Observation,
    Prices,
    ProposeContext,
    Tuner,
    Unpriced,
)
from fedstep.server.tuning.steps import StepSummary

_T = TypeVar("_T")
_UNBOUNDED = 1e30
"""Stands for a loss that is not finite: JSON has none, and whoever compares losses clips them."""

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Result:
    """What an arm gave in all.

    Attributes:
        arm: The arm.
        value: The objective after its last round; None when there is none.
        metrics: Of the last evaluation.
        losses: The last evaluation's loss by client; 1e30 where it was not finite.
        clients: What the training cohorts of all its rounds told, where the arm asks its clients something (`points`,
            `local_validation`).
        steps: The same of every arm, summed up.
        failed: Why it could not go on; "" when it came to its end.
        cost: Of all its rounds.
    """

    arm: Arm
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    clients: Sequence[ClientReport] = ()
    steps: StepSummary = field(default_factory=StepSummary)
    failed: str = ""
    cost: Cost = field(default_factory=Cost)


Part = Generator[list[Arm], list[Result], _T]
"""A stretch of a program: yields arms that may be trained at the same time, at least one, is sent their results in the
same order, and returns what it found out. A program runs one with `yield from`."""

Program = Part[int | None]
"""All of it; returns the number of the arm to deliver."""


class ProgramTuner(Tuner):
    """A tuner that runs a `Program`.

    An implementation writes `program`. In it `arm` numbers a new arm, `note` tells a decision, `keep` says which ended
    arms are needed later (the others' models are removed), `deliver` which one would be the study's result now, and
    `spent` is the cost of everything so far, and `price` what a round at a point is expected to take. An arm that
    failed comes back with `failed` set.
    """

    per_trial = False

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.spent = Cost()
        self._count = 0
        self._notes: list[Note] = []
        self._kept: set[int] = set()
        self._delivered: int | None = None
        self._journal: dict[int, dict[str, Any]] = {}
        self._partial: dict[int, Result] = {}
        self._seen: dict[int, int] = {}
        self._batch: list[Arm] = []
        self._running: Program | None = None
        self._prices: Prices = Unpriced()
        self._told: list[float | None] = []
        self._asked = 0

    # what a program uses -----------------------------------------------------------------------------------------

    @abstractmethod
    def program(self) -> Program:
        """The method, from its first arm to the number of the one to deliver."""

    def arm(self, hyperparameters: Mapping[str, Any], **settings: Any) -> Arm:
        """The next arm; settings as `Arm`'s attributes."""
        made = Arm(self._count, dict(hyperparameters), **settings)
        self._count += 1
        return made

    def note(self, kind: str, text: str, **details: Any) -> None:
        """Tells a decision with its evidence."""
        self._notes.append(Note(kind, text, details))

    def keep(self, *arms: Arm | int) -> None:
        """From now on only these ended arms are needed."""
        self._kept = {arm if isinstance(arm, int) else arm.number for arm in arms}

    def deliver(self, arm: Arm | int) -> None:
        """Would end with this arm's model, if the study ended now. It is kept as well."""
        self._delivered = arm if isinstance(arm, int) else arm.number

    def price(self, point: Hyperparameters) -> float | None:
        """Seconds that a round at that point is expected to take, as it was when arms were last asked for.

        None while nothing is known of it. What was answered once is answered again after a restart.
        """
        self._asked += 1
        if self._asked > len(self._told):
            seconds = self._prices.round_s(point)
            self._told.append(None if seconds is None else float(f"{seconds:.4g}"))
        return self._told[self._asked - 1]

    # the contract ------------------------------------------------------------------------------------------------

    def propose(self, context: ProposeContext) -> list[Arm]:
        """The arms of the program's present step that are not out yet."""
        self._prices = context.prices
        self._begin()
        # Arms go out in the order of their numbers: those from the next number on never did, or a crash lost them.
        waiting = [arm for arm in self._batch if arm.number >= context.next_number]
        return sorted(waiting, key=lambda arm: arm.number)[: context.slots]

    def observe(self, observation: Observation) -> Decision:
        """Gathers an arm's rounds; the program goes on when all arms of its step have ended.

        Raises:
            InternalError: The arm was never proposed.
        """
        self._begin()
        number = observation.number
        if number in self._journal:
            return Decision.FAIL if self._journal[number].get("failed") else Decision.FINISH
        result = self._gathered(observation)
        if not (observation.last or observation.failed):
            return Decision.CONTINUE
        self._journal[number] = _to_json(result)
        self._advance()
        return Decision.FAIL if observation.failed else Decision.FINISH

    def keeps(self) -> set[int]:
        """Those the program keeps, the one it delivers, and the present step's."""
        now = {arm.number for arm in self._batch} | {parent for arm in self._batch for parent in arm.parents}
        delivered = set() if self._delivered is None else {self._delivered}
        return self._kept | now | delivered

    def delivers(self) -> int | None:
        """See `Tuner.delivers`."""
        return self._delivered

    def notes(self) -> list[Note]:
        """See `Tuner.notes`."""
        notes, self._notes = self._notes, []
        return notes

    def state(self) -> dict[str, Any]:
        """What the program was sent so far, and the rounds of arms under way."""
        return {
            "keeps": sorted(self.keeps()),  # for a coordinator that does not run the program, and must not tidy it away
            "results": {str(number): result for number, result in self._journal.items()},
            "partial": {str(number): _to_json(result) for number, result in self._partial.items()},
            "prices": list(self._told),
            "rounds": {str(number): rounds for number, rounds in self._seen.items() if number in self._partial},
        }

    def restore(self, state: dict[str, Any], open_arms: Sequence[Arm]) -> None:
        """Runs the program again on what it was sent."""
        self._journal = {int(number): result for number, result in state.get("results", {}).items()}
        self._told = list(state.get("prices", ()))
        self._begin()
        arms = {arm.number: arm for arm in self._batch}
        open_numbers = {arm.number for arm in open_arms}
        self._partial = {
            int(number): _from_json(arms[int(number)], result)
            for number, result in state.get("partial", {}).items()
            if int(number) in arms and int(number) in open_numbers
        }
        self._seen = {number: int(state["rounds"][str(number)]) for number in self._partial}
        self._notes.clear()  # they were told before

    # inside ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._running is None:
            self._running = self.program()
            self._go_on(None)
            self._advance()

    def _advance(self) -> None:
        """Sends the program what its arms gave, for as long as all of it is there."""
        while self._batch and all(arm.number in self._journal for arm in self._batch):
            results = [_from_json(arm, self._journal[arm.number]) for arm in self._batch]
            self.spent = sum((result.cost for result in results), self.spent)
            self._go_on(results)

    def _go_on(self, results: list[Result] | None) -> None:
        """Runs the program to its next step, or to its end, which may come before its first arm."""
        assert self._running is not None
        try:
            self._batch = next(self._running) if results is None else self._running.send(results)
        except StopIteration as end:
            self._batch = []
            if end.value is not None:
                self._delivered = end.value

    def _gathered(self, observation: Observation) -> Result:
        """The arm's result with this round; a round that was observed before changes nothing."""
        number = observation.number
        arm = next((arm for arm in self._batch if arm.number == number), None)
        if arm is None:
            raise InternalError(f"The tuner was told of trial {number}, which it never proposed.")
        result = self._partial.get(number, Result(arm))
        if observation.round >= self._seen.get(number, 0):
            self._seen[number] = observation.round + 1
            result = _with_round(result, observation)
        self._partial[number] = result = replace(result, failed=observation.failed)
        if observation.last or observation.failed:
            del self._partial[number]
        return result


def _with_round(result: Result, observation: Observation) -> Result:
    asked = bool(result.arm.points) or result.arm.local_validation
    result = replace(
        result,
        clients=(*result.clients, *(map(_compact, observation.clients) if asked else ())),
        steps=result.steps.joined(observation.clients),
        cost=result.cost + observation.cost,
    )
    value = observation.value
    if value is None and not observation.losses:
        return result
    return replace(
        result,
        value=value if value is not None and math.isfinite(value) else None,
        metrics={name: metric for name, metric in observation.metrics.items() if math.isfinite(metric)},
        losses={name: _finite(loss) for name, loss in observation.losses.items()},
    )


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else _UNBOUNDED


def _compact(report: ClientReport) -> ClientReport:
    """The report in fewer digits: it is committed again with every round."""
    losses = tuple(float(f"{_finite(loss):.6g}") for loss in report.losses)
    return replace(
        report,
        losses=losses,
        step_ms=tuple(float(f"{ms:.4g}") for ms in report.step_ms),
        loss_before=None if report.loss_before is None else _finite(report.loss_before),
        loss_after=None if report.loss_after is None else _finite(report.loss_after),
    )


def _to_json(result: Result) -> dict[str, Any]:
    """What is not as in an empty result: the journal is committed with every round."""
    stored = _differing(result, Result(result.arm))
    if "clients" in stored:
        told = [_differing(client, ClientReport("")) for client in result.clients]
        stored["clients"] = [
            {name: list(value) if isinstance(value, tuple) else value for name, value in one.items()} for one in told
        ]
    parts = (("steps", result.steps, StepSummary()), ("cost", result.cost, Cost()))
    return stored | {name: _differing(part, blank) for name, part, blank in parts if name in stored}


def _from_json(arm: Arm, stored: Mapping[str, Any]) -> Result:
    parts: dict[str, Any] = {
        "clients": tuple(_client(client) for client in stored.get("clients", ())),
        "steps": StepSummary(**stored.get("steps", {})),
        "cost": Cost(**stored.get("cost", {})),
    }
    return Result(arm, **{**stored, **parts})


def _client(stored: Mapping[str, Any]) -> ClientReport:
    columns = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    return ClientReport(**{"name": "", **stored, **columns})


def _differing(record: "DataclassInstance", blank: "DataclassInstance") -> dict[str, Any]:
    """The fields in which the record is not as the blank one."""
    return {
        field.name: getattr(record, field.name)
        for field in fields(record)
        if getattr(record, field.name) != getattr(blank, field.name)
    }
