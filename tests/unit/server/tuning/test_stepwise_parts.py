"""The parts of the step-wise tuner, each by itself."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.spaces import spaces
from fedstep.common.space import Space
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, ClientReport, Cost
from fedstep.server.tuning.generations import lean_of
from fedstep.server.tuning.lineage import sobol_points
from fedstep.server.tuning.meter import Meter
from fedstep.server.tuning.opening import ScreenPlan, plan_screen
from fedstep.server.tuning.paired import adopts, compare, compare_priced, mean_losses
from fedstep.server.tuning.program import Result
from fedstep.server.tuning.proposers import Attempt, GaussianProposer, OptunaProposer, Proposer, Question
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.steps import StepSummary
from fedstep.server.tuning.stepwise_settings import StepwiseSettings
from fedstep.server.tuning.trust_region import TrustRegion
from fedstep.server.tuning.window import Window, has_diverged, learnt_window

SETTINGS = StepwiseSettings()
SPACE: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.95},
    "batch_size": {"low": 8, "high": 64, "log": True},
    "local_epochs": {"low": 1, "high": 5},
    "server_lr": {"low": 0.1, "high": 30.0, "log": True},
    "server_momentum": {"choices": [0.0, 0.9]},
}
POINT = {"lr": 0.1, "momentum": 0.0, "batch_size": 16, "local_epochs": 1, "server_lr": 1.0, "server_momentum": 0.0}


def study(space: Any = None, **changes: Any) -> StudySpec:
    content = {"name": "s", "task": "digits", "seed": 3, "space": SPACE if space is None else space}
    return StudySpec.model_validate(
        content | {"aggregator": {"name": "fedavgm"}, "selector": {"name": "random"}} | changes
    )


def scales(space: Any = None, **changes: Any) -> Scales:
    return Scales(study(space, **changes), {})


# paired ----------------------------------------------------------------------------------------------------------


def test_z_is_the_mean_difference_over_its_standard_error() -> None:
    evidence = compare({"a": 1.0, "b": 1.2, "c": 1.4, "d": 9.0}, {"a": 1.1, "b": 1.5, "c": 1.4}, clip=5.0)
    d = np.array([-0.1, -0.3, 0.0])
    assert evidence.n == 3
    assert evidence.mean == pytest.approx(d.mean())
    assert evidence.z == pytest.approx(d.mean() / (d.std(ddof=1) / math.sqrt(3)))
    assert evidence.relative == pytest.approx(d.mean() / np.mean([1.1, 1.5, 1.4]))


def test_losses_are_clipped_before_they_are_compared() -> None:
    evidence = compare({"a": math.inf, "b": 100.0, "c": 1.0}, {"a": 6.0, "b": 4.0, "c": 1.0}, clip=5.0)
    assert evidence.mean == pytest.approx(1 / 3)


def test_the_same_losses_are_no_evidence_and_a_constant_difference_is_much() -> None:
    assert compare({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, 5.0).z == 0.0
    assert compare({"a": 0.5, "b": 1.5}, {"a": 1.0, "b": 2.0}, 5.0).z == -99.0
    assert compare({"a": 1.0}, {"b": 1.0}, 5.0).n == 0


def test_one_measurement_counts_by_its_size() -> None:
    assert compare({"proxy": 0.999}, {"proxy": 1.0}, 5.0).z > -0.7
    assert compare({"proxy": 0.9}, {"proxy": 1.0}, 5.0).z < -2


@pytest.mark.parametrize(("z", "weaker", "adopted"), [(-0.8, False, True), (-0.6, False, False)])
def test_adoption_needs_z_under_minus_0_7(z: float, weaker: bool, adopted: bool) -> None:
    spread = 0.3
    losses = {"a": 1.0 + z * spread / math.sqrt(2) - spread / math.sqrt(2), "b": 1.0 + z * spread / math.sqrt(2)}
    losses["b"] += spread / math.sqrt(2)
    evidence = compare(losses, {"a": 1.0, "b": 1.0}, 5.0)
    assert evidence.z == pytest.approx(z)
    assert adopts(evidence, weaker, SETTINGS) is adopted


def test_the_guard_asks_for_z_under_minus_2() -> None:
    base = {str(k): 1.0 for k in range(4)}
    for shift, adopted in [(-0.15, False), (-0.5, True)]:
        evidence = compare({str(k): 1.0 + shift + 0.2 * (-1) ** k for k in range(4)}, base, 5.0)
        assert adopts(evidence, False, SETTINGS)
        assert adopts(evidence, True, SETTINGS) is adopted


def test_under_a_price_improvement_per_second_is_compared() -> None:
    before = {"a": 2.0, "b": 2.2}
    slow, fast = {"a": 1.0, "b": 1.3}, {"a": 1.4, "b": 1.7}
    assert compare(slow, fast, 5.0).mean < 0
    assert compare_priced((slow, 10.0), (fast, 2.0), before, 5.0).mean > 0
    assert compare_priced((slow, 1.0), (fast, 1.0), before, 5.0) == replace(compare(slow, fast, 5.0), priced=True)


def test_means_are_taken_over_common_clients() -> None:
    assert mean_losses([{"a": 1.0, "b": 3.0}, {"b": 2.0}, {}], 5.0) == [3.0, 2.0, math.inf]
    assert mean_losses([{"a": 1.0}, {"b": 9.0}], 5.0) == [1.0, 5.0]


# the window ------------------------------------------------------------------------------------------------------


def report(point: int, losses: list[float], diverged: bool = False) -> ClientReport:
    return ClientReport(f"c{point}", point, diverged, 1, tuple(losses))


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([1.0, 1.0, 1.4, 1.4, 1.4, 1.4], False),
        ([1.0, 1.0, 1.6, 1.6, 1.6, 1.6], True),
        ([1.0, 1.0, math.nan], True),
        ([1.0, math.inf], True),
        ([2.0, 1.5, 1.0, 0.5], False),
    ],
)
def test_a_client_diverges_when_its_last_four_losses_are_half_as_high_again(
    losses: list[float], diverged: bool
) -> None:
    assert has_diverged(report(0, losses), SETTINGS) is diverged


def probed(lrs: list[float], momentum: float = 0.0) -> tuple[list[dict[str, Any]], list[ClientReport]]:
    """Points of those learning rates, and clients that train well at 0.01 to 0.1 and diverge over 0.5."""
    points = [{**POINT, "lr": lr, "momentum": momentum} for lr in lrs]
    reports = []
    for k, lr in enumerate(lrs):
        rate = lr / (1 - momentum)
        last = 10.0 if rate > 0.5 else 1.0 if rate >= 0.01 else 1.95
        reports.append(report(k, [2.0, 2.0, 2.0, *[last] * 4]))
    return points, reports


def test_the_window_lies_between_what_diverged_and_what_hardly_trains() -> None:
    points, reports = probed([1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.8, 1.0])
    low, high = learnt_window(points, reports, scales(), SETTINGS).lr["sgd"]
    assert high == pytest.approx(math.log10(0.8) + 0.3)
    assert -2.5 <= low <= -2.0


def test_the_window_is_of_the_effective_learning_rate() -> None:
    points, reports = probed([0.001, 0.01, 0.08], momentum=0.9)
    window = learnt_window(points, reports, scales(), SETTINGS)
    assert window.lr["sgd"][1] == pytest.approx(math.log10(0.8) + 0.3)
    assert not window.holds({**POINT, "lr": 0.5, "momentum": 0.9}, scales())
    assert window.holds({**POINT, "lr": 0.1, "momentum": 0.9}, scales())


def test_optimizers_have_windows_of_their_own() -> None:
    space = {"lr": SPACE["lr"], "optimizer": {"choices": ["sgd", "adam"]}}
    points = [{"lr": 0.5, "optimizer": "adam"}, {"lr": 0.5, "optimizer": "sgd"}]
    reports = [report(0, [1.0, 1.0, 9.0, 9.0, 9.0, 9.0]), report(1, [2.0, 2.0, 1.0, 1.0, 1.0, 1.0])]
    window = learnt_window(points, reports, scales(space), SETTINGS)
    assert window.lr["adam"][1] == pytest.approx(math.log10(0.5) + 0.3)
    assert window.lr["sgd"][1] == math.inf


def test_a_probe_where_nothing_diverges_or_nothing_trains_leaves_that_side_open() -> None:
    points, reports = probed([0.01, 0.1])
    assert learnt_window(points, reports, scales(), SETTINGS).lr["sgd"][1] == math.inf
    flat = [report(k, [2.0] * 6) for k in range(2)]
    assert learnt_window(points, flat, scales(), SETTINGS).lr["sgd"] == (-math.inf, math.inf)
    everything = [report(k, [1.0, math.nan]) for k in range(2)]
    low, high = learnt_window(points, everything, scales(), SETTINGS).lr["sgd"]
    assert low < high == pytest.approx(-2 + 0.3)


@pytest.mark.parametrize(
    ("lr", "high", "begins"),
    [
        (0.05, 0.0, 10**-0.75),
        (0.02, 0.0, 10**-0.75),
        (0.0005, 0.0, 10**-0.75),
        (0.05, 1.0, 10**-0.75),  # the space ends at 1
        (0.8, -0.9, 10**-1.2),
        (0.05, math.inf, 0.05),  # nothing diverged
        (0.3, math.inf, 0.3),
        (0.5, math.inf, 10**-0.75),  # near to the space's end
        (0.02, math.inf, 10**-1.5),
        (0.0005, math.inf, 10**-0.75),
    ],
)
def test_training_begins_in_the_middle_where_the_default_says_little(lr: float, high: float, begins: float) -> None:
    window, found = Window({"sgd": (-1.5, high)}, (0.2, 10.0), 0.5), scales()
    start = window.beginning({**POINT, "lr": lr, "momentum": 0.0}, found)
    assert start["lr"] == pytest.approx(begins)


def test_a_window_without_a_lower_end_has_no_middle() -> None:
    found = scales({"lr": {"low": 0.0, "high": 1.0}})
    assert Window({"sgd": (-math.inf, -1.4)}, margin=0.5).beginning({"lr": 0.3}, found)["lr"] == pytest.approx(10**-1.4)


def test_what_the_windows_edge_pulls_back_to_the_incumbent_has_not_moved() -> None:
    center = {**POINT, "server_lr": 1.0, "server_momentum": 0.9}
    region = TrustRegion(scales(), center, 0.2, Window(server_lr=(0.2, 10.0)))
    assert region.at({"server_lr": 0.7}) == center
    assert region.at({"server_lr": -0.7})["server_lr"] < 1


def test_the_servers_effective_learning_rate_is_kept_between_0_2_and_10() -> None:
    window = Window(server_lr=(0.2, 10.0))
    found = scales()
    for server_lr, momentum, inside in [(0.1, 0.0, False), (0.1, 0.9, True), (2.0, 0.9, False), (2.0, 0.0, True)]:
        point = {**POINT, "server_lr": server_lr, "server_momentum": momentum}
        assert window.holds(point, found) is inside
        assert window.holds(window.pulled_in(point, found), found)


def test_adaptive_server_optimizers_have_no_window() -> None:
    window = Window(server_lr=(0.2, 10.0))
    assert window.holds({**POINT, "server_lr": 0.1}, scales(aggregator={"name": "fedadam"}))


# scales ----------------------------------------------------------------------------------------------------------


def test_the_default_is_the_users_then_the_tasks_then_fedsteps() -> None:
    found = Scales(study(), {"lr": 0.2, "batch_size": 7})
    point = found.default_point({"momentum": 0.5})
    assert point == {
        "lr": 0.2,
        "momentum": 0.5,
        "batch_size": 8,  # the nearest to 7
        "local_epochs": 1,
        "server_lr": 1.0,
        "server_momentum": 0.9,
    }


@given(spaces())
@settings(max_examples=60)
def test_the_default_is_a_point_of_any_space(space: Space) -> None:
    space.validate_point(scales(space.model_dump()).default_point({}))


def test_a_scaled_value_stays_in_its_range_and_type() -> None:
    found = scales({"lr": {"choices": [0.01, 0.1, 1.0]}, "momentum": {"low": 0.0, "high": 0.9, "step": 0.3}})
    assert found.scaled({"lr": 0.1, "momentum": 0.9}, "lr", 0.2) == {"lr": 0.01, "momentum": 0.9}
    assert found.scaled({"lr": 0.1, "momentum": 0.9}, "momentum", 0.6) == {"lr": 0.1, "momentum": 0.6}
    assert found.scaled({"lr": 0.1}, "server_lr", 0.6) == {"lr": 0.1}
    assert scales().scaled(POINT, "lr", 1e-9)["lr"] == 1e-4


# the trust region and who proposes in it ---------------------------------------------------------------------------


def question(space: Any = None, rho: float = 0.2, generation: int = 1, **changes: Any) -> Question:
    found = scales(space)
    center = changes.pop("center", None) or found.default_point({})
    region = TrustRegion(found, center, rho, changes.pop("window", Window()), changes.pop("frozen", ()))
    return Question(region, generation, **changes)


def proposers(space: Any = None) -> list[Proposer]:
    spec = study(space)
    return [GaussianProposer(3, 0.35), OptunaProposer(spec, "TPESampler", {}, 2)]


@given(spaces(), st.integers(1, 50), st.sampled_from([0.05, 0.2, 0.35]))
@settings(max_examples=60)
def test_a_challenger_is_another_point_of_any_space(space: Space, generation: int, rho: float) -> None:
    asked = question(space.model_dump(), rho, generation)
    proposal = GaussianProposer(3, 0.35).propose(asked)
    if proposal is not None:
        space.validate_point(proposal.point)
        assert proposal.point != asked.region.center


@given(spaces())
@settings(max_examples=10)
def test_optunas_challengers_are_points_of_any_space(space: Space) -> None:
    proposal = OptunaProposer(study(space.model_dump()), "RandomSampler", {}, 2).propose(question(space.model_dump()))
    if proposal is not None:
        space.validate_point(proposal.point)


@pytest.mark.parametrize("which", [0, 1])
def test_the_same_question_has_the_same_answer_and_another_generation_another(which: int) -> None:
    first, again = proposers()[which].propose(question()), proposers()[which].propose(question())
    assert first == again
    assert first != proposers()[which].propose(question(generation=2))


def test_coordinates_move_with_a_chance_of_0_35_by_steps_of_the_width() -> None:
    found, center = scales(), {**POINT, "lr": 0.01, "momentum": 0.5}
    steps = []
    for generation in range(400):
        proposal = GaussianProposer(0, 0.35).propose(question(center=center, generation=generation, rho=0.1))
        assert proposal is not None
        steps.append(found.space.to_unit(proposal.point)["lr"] - found.space.to_unit(center)["lr"])
    moved = [step for step in steps if step != 0]
    assert 0.3 < len(moved) / len(steps) < 0.48  # a little over 0.35: a challenger that moved nowhere is drawn again
    assert np.std(moved) == pytest.approx(0.1, rel=0.2)


def test_a_wider_region_reaches_further() -> None:
    found = scales()
    unit = found.space.to_unit({**POINT, "lr": 0.01})["lr"]
    for rho in (0.05, 0.35):
        region = TrustRegion(found, {**POINT, "lr": 0.01}, rho, Window())
        assert found.space.to_unit(region.at({"lr": 1.0}))["lr"] == pytest.approx(unit + rho)
        assert region.at({"lr": 0.0}) == {**POINT, "lr": 0.01}


def test_a_step_over_the_edge_of_the_cube_is_reflected() -> None:
    found = scales()
    region = TrustRegion(found, {**POINT, "momentum": 0.9}, 0.2, Window())
    at, step = found.space.to_unit(region.center)["momentum"], 1.0
    moved = found.space.to_unit(region.at({"momentum": step}))["momentum"]
    assert moved == pytest.approx(2 - (at + 0.2 * step))
    low = TrustRegion(found, POINT, 0.2, Window()).at({"momentum": -0.5})
    assert found.space.to_unit(low)["momentum"] == pytest.approx(0.1)


@pytest.mark.parametrize("which", [0, 1])
def test_challengers_stay_inside_the_window(which: int) -> None:
    window, found = Window({"sgd": (-2.0, -1.0)}, (0.2, 10.0)), scales()
    for generation in range(1, 20):
        proposal = proposers()[which].propose(
            question(generation=generation, window=window, center={**POINT, "lr": 0.1}, rho=0.35)
        )
        assert proposal is not None
        point = proposal.point
        assert window.holds(point, found) or point["lr"] in (1e-4, 1.0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("lean", [-1, 1])
def test_a_lean_chooses_the_direction_of_the_learning_rate(which: int, lean: int) -> None:
    for generation in range(1, 10):
        proposal = proposers()[which].propose(
            question(generation=generation, lean=lean, center={**POINT, "lr": 0.01}, rho=0.1)
        )
        assert proposal is not None
        assert lean * (float(proposal.point["lr"]) - 0.01) > 0


@pytest.mark.parametrize("which", [0, 1])
def test_what_only_the_screen_chooses_does_not_move(which: int) -> None:
    for generation in range(1, 10):
        proposal = proposers()[which].propose(question(generation=generation, frozen=("lr", "server_momentum")))
        assert proposal is not None
        center = question().region.center
        assert proposal.point["lr"] == center["lr"]
        assert proposal.point["server_momentum"] == center["server_momentum"]


def test_a_space_of_one_point_has_no_challenger() -> None:
    space = {"lr": {"low": 0.1, "high": 0.1}, "optimizer": {"choices": ["sgd"]}}
    assert [proposer.propose(question(space)) for proposer in proposers(space)] == [None, None]


SAMPLERS = ["TPESampler", "RandomSampler", "GPSampler", "CmaEsSampler", "NSGAIISampler", "QMCSampler"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_any_sampler_proposes_with_earlier_generations_as_priors(name: str) -> None:
    options = {"warn_independent_sampling": False} if name in ("CmaEsSampler", "QMCSampler") else {}
    proposer = OptunaProposer(study(), name, options, 2)
    history: list[Attempt] = []
    seen = []
    for generation in range(1, 6):
        proposal = proposer.propose(question(generation=generation, history=tuple(history)))
        assert proposal is not None
        seen.append(proposal.point)
        history.append(Attempt(generation, proposal.displacement, 0.1 * generation, proposal.memory))
    assert len({str(point) for point in seen}) == 5


def test_tpe_learns_the_direction_that_paid() -> None:
    center = {**POINT, "lr": 0.01}
    rng = np.random.default_rng(0)
    history = []
    for generation in range(1, 25):
        step = float(rng.uniform(-1, 1))
        displacement = {"lr": step, "momentum": 0.0, "batch_size": 0.0, "local_epochs": 0.0, "server_lr": 0.0}
        history.append(Attempt(generation, {**displacement, "server_momentum": 0.0}, step))
    up = 0
    for generation in range(25, 35):
        proposal = OptunaProposer(study(), "TPESampler", {}, 2).propose(
            question(center=center, generation=generation, history=tuple(history))
        )
        assert proposal is not None
        up += float(proposal.point["lr"]) > 0.01
    assert up >= 8


def test_nothing_is_said_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.enable_default_handler()
    OptunaProposer(study(), "TPESampler", {}, 2).propose(question())
    assert capfd.readouterr().err == ""


# the hint --------------------------------------------------------------------------------------------------------


def summed(*losses: tuple[float, ...]) -> StepSummary:
    return StepSummary().joined(ClientReport("c", losses=each) for each in losses)


@pytest.mark.parametrize(
    ("losses", "lean"),
    [
        ((1.0, 1.2, 1.4, 1.6), -1),
        ((1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5), -1),
        ((2.0, 1.5, 0.6, 0.3), 1),
        ((1.0, 0.95, 0.9, 0.85), 0),
    ],
)
def test_rising_and_oscillating_losses_ask_for_less_and_steep_falls_for_more(
    losses: tuple[float, ...], lean: int
) -> None:
    assert lean_of(summed(losses), SETTINGS) == lean
    assert lean_of(summed(losses), StepwiseSettings(use_hint=False)) == 0


def test_steps_are_summed_up_over_clients_and_rounds() -> None:
    found = summed((4.0, 2.0), (2.0, 1.0)).joined([ClientReport("x", diverged=True, losses=(1.0, 9.0))])
    assert (found.clients, found.first, found.last, found.diverged) == (2, 3.0, 1.5, 1)
    assert found.fall == 0.5
    assert StepSummary().joined([ClientReport("short", losses=(1.0,))]) == StepSummary()


# the budget ------------------------------------------------------------------------------------------------------


def result(cost: Cost, **arm: Any) -> Result:
    return Result(Arm(0, {}, **arm), cost=cost)


def test_the_fraction_spent_is_the_largest_of_those_that_are_set() -> None:
    meter = Meter(study(budget={"rounds": 100, "client_rounds": 200, "payload_bytes": 1000}), 0)
    meter.add([result(Cost(10, 10, 10, 1e9))])
    assert meter.fraction == pytest.approx(0.1)
    meter.add([result(Cost(0, 50, 0, 0))])
    assert meter.fraction == pytest.approx(0.3)


def test_without_any_budget_it_is_the_rounds_of_all_trials() -> None:
    meter = Meter(study(budget={"trials": 4, "rounds_per_trial": 15}), 1)
    assert meter.rounds_in_all == 60
    meter.add([result(Cost(rounds=20))])
    assert meter.rounds_left == 39


def test_what_a_round_costs_is_learnt() -> None:
    meter = Meter(study(budget={"time": "100s", "trials": 10, "rounds_per_trial": 10}), 0)
    assert meter.rounds_in_all == 100
    meter.add([result(Cost(rounds=5, seconds=10.0))])
    assert meter.rounds_in_all == 50
    assert meter.rounds_left == 45


def test_seconds_of_arms_side_by_side_go_by_once() -> None:
    arms = [result(Cost(rounds=5, seconds=10.0)), result(Cost(rounds=5, seconds=12.0))]
    for lanes, fraction in [(1, 0.22), (2, 0.12)]:
        meter = Meter(study(budget={"time": "100s"}, parallel_trials=lanes), 0)
        meter.add(arms)
        assert meter.fraction == pytest.approx(fraction)


def test_rounds_are_those_of_what_goes_on() -> None:
    """A round of two epochs is predicted to take twice as long as one of one, however fast the fleet is taken to be."""
    fleet = {"pace": 100.0}
    price = lambda point: fleet["pace"] * point["epochs"]  # noqa: E731

    def trained(epochs: int, rounds: int) -> Result:
        return Result(Arm(0, {"epochs": epochs}), cost=Cost(rounds=rounds, seconds=1.0 * epochs * rounds))

    meter = Meter(study(budget={"time": "100s"}), 0, price)
    meter.goes_on_with({"epochs": 1})
    meter.add([trained(1, 10), trained(2, 5)])  # 20 s
    assert meter.rounds_left == 80
    assert meter.relative({"epochs": 3}) == 3
    fleet["pace"] = 0.5  # the first predictions were wrong for all
    meter.goes_on_with({"epochs": 2})
    assert meter.rounds_left == 40
    meter.add([trained(2, 10), result(Cost(seconds=1.0))])  # and a measurement
    assert meter.rounds_left == 28


def test_prices_that_are_not_known_or_not_paid_in_seconds_change_nothing() -> None:
    for budget, price in (({"time": "100s"}, lambda point: None), ({"rounds": 100}, lambda point: 1 / 0)):
        meter = Meter(study(budget=budget), 0, price)
        meter.goes_on_with({"epochs": 1})
        meter.add([Result(Arm(0, {"epochs": 5}), cost=Cost(rounds=10, seconds=10.0))])
        meter.goes_on_with({"epochs": 2})
        assert meter.rounds_left == 90


def test_a_probe_costs_but_says_nothing_of_a_round() -> None:
    meter = Meter(study(budget={"client_rounds": 1000}, round={"cohort_size": 10}), 0)
    meter.add([result(Cost(1, 30, 0, 0), discard=True)])
    assert meter.fraction == pytest.approx(0.03)
    assert meter.rounds_in_all == 100


# the screen ------------------------------------------------------------------------------------------------------


EARLY_SCREEN = StepwiseSettings(screen_from_rounds=30)


@given(st.integers(1, 2000))
def test_the_screen_keeps_to_its_share(rounds: int) -> None:
    plan = plan_screen(rounds, EARLY_SCREEN)
    if plan is None:
        assert rounds < 30
        return
    cost = plan.members * plan.rungs[0] + sum(3 * rung for rung in plan.rungs[1:])
    assert cost <= 0.3 * rounds
    assert 3 <= plan.members <= 8
    assert 2 <= plan.rungs[0] <= 5


def test_a_screen_has_eight_members_where_it_can() -> None:
    assert plan_screen(600, SETTINGS) == ScreenPlan(8, (5, 8, 17), decides=True)
    assert plan_screen(600, StepwiseSettings(screen_default=False)) == ScreenPlan(8, (5, 8))
    assert plan_screen(499, SETTINGS) is None
    assert plan_screen(600, StepwiseSettings(screen_members=0)) is None


def test_a_screen_is_smaller_in_a_smaller_budget() -> None:
    assert plan_screen(214, EARLY_SCREEN) == ScreenPlan(8, (5, 8))
    assert plan_screen(60, EARLY_SCREEN) == ScreenPlan(4, (2, 3))
    assert plan_screen(29, EARLY_SCREEN) is None


@given(spaces(), st.integers(1, 40))
@settings(max_examples=30)
def test_sobol_points_are_points_of_any_space_and_depend_on_the_seed(space: Space, count: int) -> None:
    points = sobol_points(space, count, [1, 2])
    assert len(points) == count
    for point in points:
        space.validate_point(point)
    assert points == sobol_points(space, count, [1, 2])
