"""What every tuner that is a program promises (`fedstep.server.tuning.program`), as tests to inherit.

Its arms go on from other arms' models, for as many rounds as they say. A tuner is correct when a class of its own
passes:

    class TestMyTuner(ProgramKit):
        tuner = {"name": "mine"}
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from contract.federation import Federation, Model
from contract.tuner_kit import SPACE, small_study
from fedstep.common.errors import InternalError
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Cost, Decision, Note, Observation, ProposeContext, Tuner
from fedstep.server.tuning.registry import create_tuner

Make = Callable[..., Tuner]


class Driver:
    """The part of a coordinator that drives such a tuner: it keeps only the models that it is asked to keep.

    Attributes:
        arms: All arms by number.
        models: Those that are kept.
        fails: Arms that shall fail in their first round.
    """

    def __init__(self, tuner: Tuner, spec: StudySpec, federation: Federation | None = None) -> None:
        self.tuner = tuner
        self.spec = spec
        self.federation = federation or Federation()
        self.arms: dict[int, Arm] = {}
        self.open: dict[int, int] = {}
        self.models: dict[int, Model] = {}
        self.running: dict[int, Model] = {}
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.values: dict[int, float] = {}
        self.notes: list[Note] = []
        self.fails: set[int] = set()
        self.spent = Cost()
        self.state: dict[str, Any] = {}

    def over(self, rounds: int | None = None) -> bool:
        """Whether the budget is used up for an arm of so many rounds; one of none is measured only."""
        budget, spent = self.spec.budget, self.spent
        trained = 0 < budget.rounds <= spent.rounds or 0 < budget.client_rounds <= spent.client_rounds
        return (
            (trained and rounds != 0)
            or 0 < budget.payload_bytes <= spent.payload_bytes
            or (budget.time is not None and spent.seconds >= budget.time.total_seconds())
        )

    def run(self, commits: int = 10_000) -> "Driver":
        """Goes on until the tuner has nothing left or the budget is spent, or for so many rounds."""
        for _ in range(commits):
            self.fill()
            if not self.open:
                return self
            self.train(min(self.open))
        assert commits < 10_000, "the tuner does not come to an end"
        return self

    def fill(self) -> list[Arm]:
        """Proposes while there are slots."""
        slots = self.spec.parallel_trials - len(self.open)
        if slots < 1 or self.over(0):
            return []
        proposed = self.tuner.propose(ProposeContext(slots, len(self.arms), tuple(self.open)))
        assert len(proposed) <= slots
        arms = list(itertools.takewhile(lambda arm: not self.over(arm.rounds), proposed))
        for arm in arms:
            assert arm.number == len(self.arms)
            self.arms[arm.number] = arm
            self.open[arm.number] = 0
            parents = [self.models[parent] for parent in arm.parents]  # a KeyError: it was not kept
            self.running[arm.number] = self.federation.begin(arm, parents)
        self.state = self.tuner.state()
        return arms

    def train(self, number: int, times: int = 1, committed: bool = True) -> None:
        """Trains an arm's next round, or fails it, and observes it as often as said."""
        arm, round = self.arms[number], self.open[number]
        if self.over(arm.rounds):
            model, seen = self.running[number], Observation(number, round, None, failed="the budget is used up")
        elif number in self.fails:
            model, seen = self.running[number], Observation(number, round, None, failed="it shall fail")
        else:
            model, seen = self.federation.step(arm, self.running[number], round)
        for _ in range(times):
            decision = self.tuner.observe(seen)
        if not committed:
            return
        self.notes += self.tuner.notes()
        self.decisions[number, round] = decision
        self.spent += seen.cost
        self.open[number] += 1
        self.running[number] = model
        if seen.value is not None:
            self.values[number] = seen.value
        if decision is not Decision.CONTINUE:
            self.models[number] = model
            del self.open[number], self.running[number]
        kept = self.tuner.keeps()
        self.models = {arm: model for arm, model in self.models.items() if arm in kept}
        self.state = self.tuner.state()

    def restart(self, tuner: Tuner) -> None:
        """Another process goes on with what was committed."""
        tuner.restore(json.loads(json.dumps(self.state)), [self.arms[number] for number in self.open])
        self.tuner = tuner

    def delivered(self) -> Model:
        """The model the study ends with."""
        number = self.tuner.delivers()
        assert number is not None
        return self.models[number]

    def told(self, kind: str) -> list[Note]:
        """The notes of a kind."""
        return [note for note in self.notes if note.kind == kind]


class ProgramKit:
    """The promises of a program tuner.

    Attributes:
        tuner: The study file's `[tuner]` table.
        space: The study's space.
        budget: The study's.
        seeded: Whether another seed gives other arms.
    """

    tuner: ClassVar[dict[str, Any]]
    space: ClassVar[dict[str, Any]] = SPACE
    budget: ClassVar[dict[str, Any]] = {"trials": 6, "rounds_per_trial": 10, "rounds": 60}
    seeded: ClassVar[bool] = True

    @pytest.fixture
    def tuners(self) -> Iterator[Make]:
        """Makes tuners without a database, since nothing depends on what they write there; closes them at the end."""
        made: list[Tuner] = []

        def make(spec: StudySpec) -> Tuner:
            made.append(create_tuner(spec, ""))
            return made[-1]

        yield make
        for tuner in made:
            tuner.close()

    def spec(self, **changes: Any) -> StudySpec:
        """A small study of the kit's space."""
        tables = {"space": self.space, "tuner": self.tuner, "budget": self.budget, "round": {"cohort_size": 10}}
        return small_study(**tables | changes)

    def test_it_comes_to_an_end_and_delivers_a_model_that_was_kept(self, tuners: Make) -> None:
        spec = self.spec()
        driver = Driver(tuners(spec), spec).run()
        assert not driver.open
        assert driver.federation.quality(driver.delivered()) < driver.federation.quality(driver.federation.start())

    @pytest.mark.parametrize("lanes", [1, 2, 5])
    def test_it_stays_inside_slots_and_budget(self, tuners: Make, lanes: int) -> None:
        spec = self.spec(parallel_trials=lanes)
        driver = Driver(tuners(spec), spec).run()
        assert driver.spent.rounds <= spec.budget.rounds + lanes - 1
        assert driver.spent.rounds >= 0.8 * spec.budget.rounds

    def test_arms_are_points_of_the_space(self, tuners: Make) -> None:
        spec = self.spec()
        for arm in Driver(tuners(spec), spec).run().arms.values():
            # What is only asked may lie outside: a probe takes as many steps everywhere, whatever the epochs are.
            for point in [arm.hyperparameters, *(() if arm.discard else arm.points)]:
                spec.space.validate_point(point)

    def test_same_seed_and_observations_give_same_arms(self, tuners: Make) -> None:
        spec = self.spec(parallel_trials=2)
        one, other = Driver(tuners(spec), spec).run(), Driver(tuners(spec), spec).run()
        assert one.arms == other.arms
        assert one.notes == other.notes

    def test_another_seed_gives_other_arms(self, tuners: Make) -> None:
        one, other = self.spec(), self.spec(seed=8)
        same = Driver(tuners(one), one).run().arms == Driver(tuners(other), other).run().arms
        assert same is not self.seeded

    def test_a_restart_after_every_commit_changes_nothing(self, tuners: Make) -> None:
        spec = self.spec(parallel_trials=2)
        whole, cut = Driver(tuners(spec), spec).run(), Driver(tuners(spec), spec)
        while True:
            cut.fill()
            if not cut.open:
                break
            cut.train(min(cut.open))
            cut.restart(tuners(spec))
        assert cut.arms == whole.arms
        assert cut.notes == whole.notes
        assert cut.tuner.delivers() == whole.tuner.delivers()
        assert cut.tuner.keeps() == whole.tuner.keeps()

    def test_a_round_observed_but_not_committed_is_observed_again(self, tuners: Make) -> None:
        spec = self.spec()
        whole, cut = Driver(tuners(spec), spec).run(), Driver(tuners(spec), spec)
        while cut.fill() or cut.open:
            number = min(cut.open)
            cut.train(number, committed=False)
            if number % 3 == 0:  # the coordinator dies here, before its commit
                cut.restart(tuners(spec))
                cut.train(number)
            else:
                cut.train(number, times=2)
        assert cut.arms == whole.arms
        assert cut.values == whole.values

    def test_arms_lost_in_a_crash_are_proposed_again(self, tuners: Make) -> None:
        spec = self.spec(parallel_trials=2)
        tuner = tuners(spec)
        first = tuner.propose(ProposeContext(slots=2, next_number=0))
        again = tuners(spec)
        again.restore({}, [])
        assert again.propose(ProposeContext(slots=2, next_number=0)) == first
        assert tuner.propose(ProposeContext(slots=2, next_number=0)) == first

    @pytest.mark.parametrize("every", [1, 2, 3, 5])
    def test_arms_may_fail(self, tuners: Make, every: int) -> None:
        spec = self.spec(parallel_trials=2)
        driver = Driver(tuners(spec), spec)
        driver.fails = set(range(every - 1, 1000, every))
        driver.run(2000)
        assert not driver.open
        assert {driver.decisions[key] for key in driver.decisions if key[0] in driver.fails} <= {Decision.FAIL}
        if every > 1 and any(number not in driver.fails for number in driver.arms):
            assert driver.tuner.delivers() not in driver.fails

    @pytest.mark.parametrize("rounds", [3, 17, 40])
    def test_a_study_that_ends_early_has_a_model(self, tuners: Make, rounds: int) -> None:
        spec = self.spec()
        driver = Driver(tuners(spec), spec)
        driver.run(rounds)
        driver.spent += Cost(rounds=10_000)
        driver.run()
        assert not driver.open
        delivered = driver.tuner.delivers()
        assert delivered is None or delivered in driver.models

    def test_state_is_json_of_a_bounded_size(self, tuners: Make) -> None:
        spec = self.spec()
        driver = Driver(tuners(spec), spec).run()
        assert json.loads(json.dumps(driver.state, allow_nan=False)) == driver.state
        assert len(json.dumps(driver.state)) < 20_000 + 2_000 * len(driver.arms)

    def test_notes_are_json_and_told_once(self, tuners: Make) -> None:
        spec = self.spec()
        driver = Driver(tuners(spec), spec).run()
        assert driver.tuner.notes() == []
        for note in driver.notes:
            assert note.text.endswith(".")
            json.dumps(dict(note.details), allow_nan=False)

    def test_an_arm_that_was_never_proposed_is_a_fault_of_ours(self, tuners: Make) -> None:
        tuner = tuners(self.spec())
        with pytest.raises(InternalError, match="trial 99, which it never proposed"):
            tuner.observe(Observation(99, 0, 0.5))

    def test_losses_that_are_not_finite_are_taken(self, tuners: Make) -> None:
        spec = self.spec()
        driver = Driver(tuners(spec), spec)
        observe = driver.tuner.observe

        def broken(seen: Observation) -> Decision:
            first = next(iter(seen.losses), None)
            losses = {**seen.losses, **({first: float("nan")} if first else {})}
            return observe(replace(seen, losses=losses, value=float("nan") if losses else seen.value))

        driver.tuner.observe = broken  # type: ignore[method-assign]  # as an evaluation of a broken model would
        driver.run()
        json.dumps(driver.state, allow_nan=False)
