"""The tuner that is asked from outside."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from contract.tuner_kit import TunerKit
from fedstep.common.errors import AlreadyExistsError, FedstepError, InvalidInputError, NotFoundError, PreconditionError
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, Decision, Observation, ProposeContext, Tuner
from fedstep.server.tuning.outside import BACK_AFTER, OutsideOptions, OutsideTuner
from fedstep.server.tuning.registry import create_tuner, validate_tuner

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Steered(OutsideTuner):
    """With somebody outside who opens a run for every arm, and steps it once at a point drawn at random."""

    def propose(self, context: ProposeContext) -> list[Arm]:
        for number in range(context.next_number, context.next_number + context.slots):
            if self.find(self.open(f"r{number}")) and self._runs[f"r{number}"].next_step == 1:
                point = self._spec.space.sample(np.random.default_rng([self._spec.seed, number]))
                self.ask(f"r{number}", 1, point, self._spec.budget.rounds_per_trial)
        return super().propose(context)


class TestOutsideTuner(TunerKit):
    tuner: ClassVar[dict[str, Any]] = {"name": "outside"}

    @pytest.fixture
    def tuners(self, tmp_path: Path) -> Callable[..., Tuner]:
        return lambda spec, database="a": Steered(spec, OutsideOptions())


def study(**changes: Any) -> StudySpec:
    space = {"lr": {"low": 1e-3, "high": 1.0, "log": True}}
    plain = {"name": "s", "task": "digits", "space": space, "tuner": {"name": "outside"}, "budget": {"rounds": 20}}
    return StudySpec.model_validate({**plain, **changes})


def outside(**options: Any) -> OutsideTuner:
    tuner = create_tuner(study(tuner={"name": "outside", **options}), "no://database")
    assert isinstance(tuner, OutsideTuner)
    return tuner


def step(tuner: OutsideTuner, run: str, number: int, lr: float = 0.1, failed: str = "") -> Arm:
    """One step of a run, trained: the arm that has this number."""
    tuner.ask(run, 0, {"lr": lr}, 1)
    (arm,) = tuner.propose(ProposeContext(1, number))
    tuner.observe(Observation(arm.number, 0, None if failed else 0.5, last=not failed, failed=failed))
    return arm


def refused(kind: type[FedstepError], field: str, call: Callable[..., Any], *arguments: Any) -> str:
    """What a call is refused with, which names that field."""
    with pytest.raises(kind) as refusal:
        call(*arguments)
    assert [violation.field for violation in refusal.value.violations] == [field]
    return refusal.value.message


def test_each_step_goes_on_from_where_its_run_stands() -> None:
    tuner = outside()
    tuner.open("a")
    arms = [step(tuner, "a", 0), step(tuner, "a", 1)]
    assert [arm.parents for arm in arms] == [(), (0,)]
    assert arms[1].phase == "run a"
    assert tuner.fork("a", 1, "b") == "b"
    assert step(tuner, "b", 2).parents == (0,)
    tuner.move("a", 0, "")
    assert step(tuner, "a", 3).parents == ()
    tuner.move("a", 1, "b")  # b's first step
    assert step(tuner, "a", 4).parents == (2,)
    assert tuner.keeps() == {0, 1, 2, 3, 4}


def test_a_step_that_failed_leaves_its_run_where_it_was() -> None:
    tuner = outside()
    tuner.open("a")
    step(tuner, "a", 0)
    step(tuner, "a", 1, failed="its loss ran away")
    assert tuner.keeps() == {0}
    assert step(tuner, "a", 2).parents == (0,)
    assert "step 2 of a failed: kept are 0, 1, 3" in refused(PreconditionError, "step", tuner.move, "a", 2, "")


def test_steps_are_numbered_anew_whatever_a_run_is_restored_to() -> None:
    tuner = outside()
    tuner.open("a")
    step(tuner, "a", 0)
    step(tuner, "a", 1)
    tuner.move("a", 1, "")
    assert tuner.ask("a", 3, {"lr": 0.2}, 1) == 3


def test_only_the_latest_steps_are_kept_and_the_one_stood_on() -> None:
    tuner = outside(keep_steps=2)
    tuner.open("a")
    for number in range(4):
        step(tuner, "a", number)
    assert tuner.keeps() == {2, 3}
    text = refused(PreconditionError, "step", tuner.move, "a", 1, "")
    assert text == "step: step 1 of a is not kept: kept are 3, 4; tuner.keep_steps says how many."
    tuner.move("a", 3, "")
    for number in (4, 5):
        step(tuner, "a", number, failed="its loss ran away")
    assert tuner.keeps() == {2}


def test_a_step_asked_again_is_the_same_step() -> None:
    tuner = outside()
    tuner.open("a")
    assert tuner.ask("a", 1, {"lr": 0.1}, 2) == 1
    assert tuner.ask("a", 1, {"lr": 0.1}, 2) == 1
    assert len(tuner.propose(ProposeContext(5, 0))) == 1
    assert "was asked with other" in refused(AlreadyExistsError, "step", tuner.ask, "a", 1, {"lr": 0.2}, 2)
    assert "is being stepped" in refused(PreconditionError, "run", tuner.ask, "a", 0, {"lr": 0.1}, 2)
    assert "is being stepped" in refused(PreconditionError, "run", tuner.move, "a", 0, "")


def test_steps_go_out_in_the_order_of_asking() -> None:
    tuner = outside()
    for name in ("a", "b", "c"):
        tuner.open(name)
    for name in ("c", "a", "b"):
        tuner.ask(name, 1, {"lr": 0.1}, 1)
    assert [arm.phase for arm in tuner.propose(ProposeContext(2, 0))] == ["run c", "run a"]
    assert [arm.phase for arm in tuner.propose(ProposeContext(3, 2))] == ["run b"]


def test_a_closed_run_needs_nothing_and_is_not_stepped() -> None:
    tuner = outside()
    tuner.open("a")
    step(tuner, "a", 0)
    tuner.close_run("a")
    tuner.close_run("a")
    assert tuner.keeps() == set()
    for call in (
        lambda: tuner.ask("a", 2, {"lr": 0.1}, 1),
        lambda: tuner.move("a", 0, ""),
        lambda: tuner.fork("a", 0, "b"),
    ):
        assert "a is closed" in refused(PreconditionError, "run", call)


def test_a_closed_run_under_way_needs_its_parent_until_it_has_ended() -> None:
    tuner = outside()
    tuner.open("a")
    step(tuner, "a", 0)
    tuner.ask("a", 2, {"lr": 0.1}, 1)
    tuner.close_run("a")
    assert tuner.keeps() == {0}
    assert [arm.parents for arm in tuner.propose(ProposeContext(1, 1))] == [(0,)]
    tuner.observe(Observation(1, 0, 0.5, last=True))
    assert tuner.keeps() == set()


def test_a_step_ends_with_its_round_once_its_run_is_closed() -> None:
    tuner = outside()
    for name in ("a", "b"):
        tuner.open(name)
        tuner.ask(name, 1, {"lr": 0.1}, 9)
    tuner.propose(ProposeContext(2, 0))
    assert tuner.observe(Observation(0, 0, 0.5)) is Decision.CONTINUE
    tuner.close_run("a")
    assert tuner.observe(Observation(0, 1, 0.5)) is Decision.PRUNE
    assert tuner.observe(Observation(1, 1, 0.5)) is Decision.CONTINUE


def test_opening_and_forking_again_changes_nothing() -> None:
    tuner = outside()
    assert [tuner.open("") for _ in range(2)] == ["run-0", "run-1"]
    step(tuner, "run-0", 0)
    assert [tuner.open("run-0"), tuner.fork("run-0", None, "b"), tuner.fork("run-0", 1, "b")] == ["run-0", "b", "b"]
    assert "began elsewhere" in refused(AlreadyExistsError, "run", tuner.open, "b")
    assert "began elsewhere" in refused(AlreadyExistsError, "new_run", tuner.fork, "run-0", 0, "b")


def test_a_run_that_goes_on_from_another_ones_model_is_a_decision_that_is_told_after_a_restart_too() -> None:
    first = outside()
    first.open("a")
    first.open("b")
    step(first, "a", 0)
    step(first, "b", 1)
    first.move("b", 1, "a")
    assert first.notes() == []
    tuner = outside()
    tuner.restore(first.state(), [])
    step(tuner, "b", 2, 0.2)
    (note,) = tuner.notes()
    assert (note.kind, note.details) == ("exploitation", {"run": "b", "source": "a", "arms": [2, 0]})
    assert "Run b goes on from run a's model with lr 0.2" in note.text
    step(tuner, "b", 3)
    tuner.fork("a", None, "c")
    step(tuner, "c", 4)
    assert [note.details["arms"] for note in tuner.notes()] == [[4, 0]]


def test_refusals_name_the_field_and_the_fix() -> None:
    tuner = outside()
    assert "open one" in refused(NotFoundError, "run", tuner.ask, "a", 1, {"lr": 0.1}, 1)
    tuner.open("alpha")
    assert "did you mean `alpha`?" in refused(NotFoundError, "run", tuner.ask, "alpah", 1, {"lr": 0.1}, 1)
    assert "rename it" in refused(InvalidInputError, "run", tuner.open, "a/b")
    assert "must be" in refused(InvalidInputError, "hyperparameters.lr", tuner.ask, "alpha", 1, {"lr": 7.0}, 1)
    assert "next step of alpha is 1" in refused(PreconditionError, "step", tuner.ask, "alpha", 3, {"lr": 0.1}, 1)
    assert refused(NotFoundError, "source_run", tuner.move, "alpha", 0, "b")


def test_a_value_counts_in_its_parameters_own_type() -> None:
    tuner = outside()
    tuner.open("a")
    tuner.ask("a", 0, {"lr": 1}, 1)
    (arm,) = tuner.propose(ProposeContext(1, 0))
    assert arm.hyperparameters == {"lr": 1.0}
    assert isinstance(arm.hyperparameters["lr"], float)


def test_a_step_of_more_rounds_than_the_study_has_is_refused() -> None:
    tuner = outside()
    tuner.open("a")
    assert "budget is 20" in refused(InvalidInputError, "rounds", tuner.ask, "a", 0, {"lr": 0.1}, 21)


def test_a_study_needs_a_bound() -> None:
    assert "is missing" in refused(InvalidInputError, "budget.rounds", validate_tuner, study(budget={"trials": 3}))
    validate_tuner(study(budget={"time": "1h"}))


def test_the_stated_time_counts_from_what_was_heard_last_and_a_restart_does_not_begin_anew() -> None:
    tuner = outside(close_after="10m")
    tuner.heard(NOON)
    late = NOON + timedelta(minutes=9)
    assert tuner.waits_until(late) == NOON + timedelta(minutes=10)
    again = outside(close_after="10m")
    again.restore(tuner.state(), [])
    assert again.waits_until(late) == NOON + timedelta(minutes=10)
    later = outside(close_after="10m")
    later.restore(tuner.state(), [])
    assert later.waits_until(NOON + timedelta(hours=8)) == NOON + timedelta(hours=8) + BACK_AFTER


def test_the_stated_time_begins_when_a_step_has_ended() -> None:
    tuner = outside(close_after="10m")
    tuner.open("a")
    tuner.heard(NOON)
    step(tuner, "a", 0)
    hour = NOON + timedelta(hours=1)
    assert tuner.waits_until(hour) == hour + timedelta(minutes=10)


def test_a_step_lost_in_a_crash_becomes_another_arm() -> None:
    tuner = outside()
    tuner.open("a")
    tuner.ask("a", 1, {"lr": 0.1}, 1)
    (arm,) = tuner.propose(ProposeContext(1, 5))
    again = outside()
    again.restore(tuner.state(), [])
    assert again.propose(ProposeContext(1, 3))[0].number == 3
    kept = outside()
    kept.restore(tuner.state(), [arm])
    assert kept.propose(ProposeContext(1, 6)) == []
    assert kept.observe(Observation(5, 0, 0.5, last=True)) is Decision.FINISH
    assert kept.keeps() == {5}
