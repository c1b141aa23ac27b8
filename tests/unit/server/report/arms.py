"""A step-wise study's arms, as the tests of its tree, its picture and its explanation use them."""

from datetime import UTC, datetime
from typing import Any

from fedstep.common.hyperparameters import Value
from fedstep.common.space import Space
from fedstep.common.spec import Budget, Objective, Plugin, StudySpec
from fedstep.server.storage.base import StudyRecord, StudyState, TrialRecord, TrialState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def arm(
    number: int,
    lr: float | dict[str, Value],
    *values: float | None,
    parents: tuple[int, ...] = (),
    first: int = 0,
    state: TrialState = TrialState.COMPLETED,
    **details: Any,
) -> TrialRecord:
    """An arm that trained as many rounds as it has values; with `rounds=0` its value is what it was measured at."""
    if parents:
        details["parents"] = list(parents)
    if details.get("rounds") == 0:
        (details["value"],), values = values, ()
    point = lr if isinstance(lr, dict) else {"lr": lr}
    return TrialRecord(number, state, point, tuple(values), first_round=first, details=details)


def story() -> list[TrialRecord]:
    """Probe, screen, an advance that was gone back on, a fork adopted by its mean, one rejected, settling."""
    return [
        arm(0, 0.9, None, phase="probe", discard=True, rounds=1),
        arm(1, 0.1, None, 2.0, phase="screen", rounds=2),
        arm(2, 0.4, None, 2.2, phase="screen", rounds=2),
        arm(3, 0.1, None, 2.6, parents=(1,), first=2, phase="advance", rounds=2, cohort=1),
        arm(4, 0.06, None, 1.5, parents=(1,), first=2, phase="advance", rounds=2, cohort=2),
        arm(5, 0.06, 1.5, parents=(4,), first=4, phase="measure", rounds=0, cohort=3),
        arm(6, 0.06, None, 1.2, parents=(4,), first=4, phase="fork", rounds=2, cohort=3),
        arm(7, 0.08, None, 1.1, parents=(4,), first=4, phase="fork", rounds=2, cohort=3),
        arm(8, 0.06, 1.0, parents=(6, 7), first=6, phase="mean", rounds=0, cohort=3),
        arm(9, 0.08, None, 0.9, parents=(8,), first=6, phase="fork", rounds=2, cohort=4),
        arm(10, 0.2, None, 1.4, parents=(8,), first=6, phase="fork", rounds=2, cohort=4),
        arm(11, 0.03, None, 0.7, parents=(9,), first=8, phase="settle", rounds=2, cohort=5),
        arm(12, 0.08, 0.65, parents=(11,), first=10, phase="average", rounds=0, of_average=True, delivered=True),
    ]


def study(
    space: dict[str, dict[str, Any]] | None = None,
    metric: str = "loss",
    tuner: str = "stepwise",
    state: StudyState = StudyState.COMPLETED,
    **budget: Any,
) -> StudyRecord:
    """A study with a budget of 60 rounds, unless another is given."""
    spec = StudySpec(
        name="writers",
        task="digits",
        space=Space.model_validate(space or {"lr": {"low": 1e-3, "high": 1.0, "log": True}}),
        objective=Objective(metric=metric, direction="minimize" if metric == "loss" else "maximize"),
        tuner=Plugin(name=tuner),
        budget=Budget(**(budget or {"rounds": 60})),
    )
    return StudyRecord(spec, state, NOW, NOW)
