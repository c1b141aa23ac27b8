import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.hyperparameters import Value
from fedstep.server.aggregation.local_work import LocalWork, effective_steps
from fedstep.server.coordination.plan import LocalPlan


@pytest.mark.parametrize(
    ("samples", "max_steps", "budget", "expected"),
    [
        (64, 0, 0, LocalPlan(12, 12)),
        (65, 0, 0, LocalPlan(15, 15)),  # the last batch of an epoch may be short
        (64, 5, 0, LocalPlan(5, 5)),
        (64, 100, 0, LocalPlan(12, 12)),
        (64, 0, 3, LocalPlan(3, 12)),  # a budget is this client's own: the others do more
        (64, 5, 3, LocalPlan(3, 5)),
        (64, 5, 8, LocalPlan(5, 5)),
        (1, 0, 0, LocalPlan(3, 3)),
    ],
)
def test_steps_of_epochs_bounds_and_budgets(samples: int, max_steps: int, budget: int, expected: LocalPlan) -> None:
    assert LocalPlan.of(samples, {"local_epochs": 3, "batch_size": 16}, max_steps, budget) == expected


def test_momentum_and_pull_are_those_of_sgd() -> None:
    values: dict[str, Value] = {"lr": 0.1, "momentum": 0.9, "proximal_mu": 0.5}
    sgd, adam = LocalPlan.of(16, values), LocalPlan.of(16, {**values, "optimizer": "adam"})
    assert (sgd.momentum, sgd.pull) == (0.9, pytest.approx(0.05))
    assert (adam.momentum, adam.pull) == (0.0, 0.0)


def test_work_is_counted_in_effective_steps() -> None:
    plan = LocalPlan(8, 8, momentum=0.9)
    assert plan.work(4) == LocalWork(effective_steps(4, 0.9), effective_steps(8, 0.9))


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**70), st.floats(0, 0.99), st.floats(0, 5))
def test_whatever_a_client_claims_is_legal_work(steps: int, due: int, momentum: float, pull: float) -> None:
    plan = LocalPlan(min(due, 10), min(due, 3000), momentum, pull)
    plan.work(steps).check()


def test_what_is_not_said_or_too_much_counts_as_all() -> None:
    plan = LocalPlan(8, 8)
    assert plan.work(0) == plan.work(8) == plan.work(9) == LocalWork(8.0, 8.0)
