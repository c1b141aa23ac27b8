"""FedPop driven through a made-up federation."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from unit.server.tuning.learning_curves import FIRST_LOSS, TWO_RATES, Federation, gain, two_rates

from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.population import PopulationOptions, PopulationTuner


def study(**changes: Any) -> StudySpec:
    return two_rates(**{"budget": {"rounds": 150, "rounds_per_trial": 30}} | changes)


def federation(spec: StudySpec, **options: Any) -> Federation:
    return Federation(PopulationTuner(spec, PopulationOptions(**options)), spec)


def slots(run: Federation, phase: str) -> list[tuple[Any, ...]]:
    """The client configurations that a member dealt out, round by round."""
    return [arm.points for arm in run.arms.values() if arm.phase == phase]


def test_client_configurations_evolve_towards_the_best() -> None:
    spec = study(budget={"rounds": 60})
    run = federation(spec, wrapper="random", arms=1, radius=0.2).run()
    rounds = slots(run, "member 0")
    assert np.mean([gain(point) for point in rounds[-1]]) > 1.1 * np.mean([gain(point) for point in rounds[0]])


def test_fedpop_l_replaces_three_of_ten_slots_when_its_turn_has_come() -> None:
    run = federation(study(budget={"rounds": 30}), wrapper="random", arms=1, local_every=5).run()
    rounds = slots(run, "member 0")
    changed = [sum(a != b for a, b in zip(old, new, strict=True)) for old, new in pairwise(rounds)]
    assert changed == [3 if k % 5 == 0 else 0 for k in range(1, 30)]


def test_fedpop_g_copies_models_from_the_best_to_the_worst() -> None:
    run = federation(study(), wrapper="random", arms=5).run()
    copies = [note for note in run.notes if note.kind == "exploitation"]
    assert len(copies) == 2 * 9  # ceil(0.3 · 5) of the members, every third of 30 rounds but the last
    crossed = [arm for arm in run.arms.values() for parent in arm.parents if run.arms[parent].phase != arm.phase]
    assert len(crossed) == len(copies)
    for arm in crossed:
        source = run.arms[arm.parents[0]]
        assert arm.hyperparameters["server_lr"] != source.hyperparameters["server_lr"]


def test_the_population_ends_with_better_server_and_client_values() -> None:
    run = federation(study(), wrapper="random", arms=5).run()
    begun = np.mean([gain(run.arms[k].hyperparameters) for k in range(5)])
    ended = np.mean([gain(run.arms[len(run.arms) - 1 - k].hyperparameters) for k in range(5)])
    assert ended > begun
    assert run.delivered.loss < 0.5 * FIRST_LOSS


def test_random_search_spends_the_whole_budget_on_equal_members() -> None:
    run = federation(study(), wrapper="random").run()
    assert run.spent.rounds == 150
    assert {len(slots(run, f"member {k}")) for k in range(5)} == {30}
    assert len(run.measured) == 5


def test_successive_elimination_ends_with_one_member() -> None:
    run = federation(study(), arms=9, longest=50).run()
    notes = [note for note in run.notes if note.kind == "elimination"]
    assert [len(note.details["arms"]) for note in notes] == [3, 1]
    assert len(run.measured) == 9 + 3 + 1
    assert run.spent.rounds == 150


def test_the_delivered_model_is_the_best_measured() -> None:
    run = federation(study(), arms=9, longest=50).run()
    number = run.tuner.delivers()
    assert number in run.measured
    assert run.delivered.loss == min(run.models[k].loss for k in run.measured if k in run.models)


def test_a_member_that_fails_goes_on_as_a_copy() -> None:
    def fails(arm: Arm) -> bool:
        return arm.number == 7  # member 2 in the second round

    spec = study()
    options = PopulationOptions(wrapper="random", arms=5)
    run = Federation(PopulationTuner(spec, options), spec, fails=fails).run()
    after = [arm for arm in run.arms.values() if arm.phase == "member 2" and arm.number > 7]
    assert run.arms[after[0].parents[0]].phase != "member 2"
    assert len(after) == 28


def test_members_that_all_fail_begin_anew() -> None:
    spec = study()
    options = PopulationOptions(wrapper="random", arms=3)
    run = Federation(PopulationTuner(spec, options), spec, fails=lambda arm: arm.number < 3).run()
    assert [run.arms[k].parents for k in (3, 4, 5)] == [(), (), ()]
    assert run.arms[3].hyperparameters != run.arms[0].hyperparameters
    assert run.delivered.loss < FIRST_LOSS


def test_same_seed_same_arms_and_another_seed_others() -> None:
    one, two = federation(study()).run(), federation(study()).run()
    assert one.arms == two.arms
    assert one.arms != federation(study(seed=4)).run().arms


@pytest.mark.parametrize("after", [0, 1, 13, 60, 149])
def test_a_restart_changes_nothing(after: int) -> None:
    spec = study(parallel_trials=2)
    whole = federation(spec, wrapper="random").run()
    cut = federation(spec, wrapper="random")
    cut.run(until=lambda: len(cut.arms) - len(cut.open) >= after)
    cut.restart(PopulationTuner(spec, PopulationOptions(wrapper="random")))
    cut.run()
    assert cut.arms == whole.arms
    assert cut.tuner.delivers() == whole.tuner.delivers()


def test_a_space_without_client_parameters_is_evolved_between_members() -> None:
    run = federation(study(space={"server_lr": TWO_RATES["server_lr"]}), wrapper="random").run()
    assert any(note.kind == "exploitation" for note in run.notes)


def test_every_point_is_one_of_the_space() -> None:
    space = {
        "lr": {"low": 1e-3, "high": 0.5, "log": True},
        "optimizer": {"choices": ["sgd", "adam"]},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
        "batch_size": {"choices": [8, 16, 32]},
        "server_lr": {"low": 0.5, "high": 1.5},
        "server_momentum": {"choices": [0.0, 0.9]},
    }
    spec = study(space=space)
    run = federation(spec).run()
    for arm in run.arms.values():
        for point in (arm.hyperparameters, *arm.points):
            spec.space.validate_point(point)
