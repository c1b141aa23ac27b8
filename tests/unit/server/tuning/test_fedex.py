"""FedEx driven through a made-up federation."""

import json
import math
from typing import Any

import numpy as np
import pytest
from unit.server.tuning.learning_curves import BEST_LR, FIRST_LOSS, TWO_RATES, Federation, gain, two_rates

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.exponentiated import ExponentiatedGradient
from fedstep.server.tuning.fedex import FedexOptions, FedexTuner


def study(**changes: Any) -> StudySpec:
    return two_rates(**{"budget": {"rounds": 90, "rounds_per_trial": 30}} | changes)


def federation(spec: StudySpec, **options: Any) -> Federation:
    return Federation(FedexTuner(spec, FedexOptions(**options)), spec)


def test_theta_concentrates_on_the_best_client_configuration() -> None:
    spec = study(budget={"rounds": 120}, seed=5)
    run = federation(spec, wrapper="random", arms=1, radius=0.3).run()
    last = run.arms[max(run.arms)]
    # Seen from the points that θ deals out: in the end they train better than those it began with.
    begun = np.mean([gain(point) for k in range(10) for point in run.arms[k].points])
    ended = np.mean([gain(point) for k in range(10) for point in run.arms[last.number - k].points])
    best = max(gain(point) for k in range(10) for point in run.arms[k].points)
    assert ended > begun
    assert ended > 0.7 * best
    assert len({point["lr"] for point in last.points}) <= 3


def test_the_rungs_of_successive_elimination() -> None:
    run = federation(study(), arms=9, longest=30).run()
    phases = [arm.phase for arm in run.arms.values()]
    assert len(set(phases)) == 9
    notes = [note for note in run.notes if note.kind == "elimination"]
    assert [len(note.details["arms"]) for note in notes] == [3, 1]
    assert run.spent.rounds == 90
    # The survivor's model goes back to the study's initial model through 30 rounds, or more where rounds were left.
    assert len(run.lineage(run.tuner.delivers() or 0)) >= 30


def test_only_decisions_are_measured() -> None:
    run = federation(study(), arms=9, longest=30).run()
    assert len(run.measured) == 9 + 3 + 1


def test_the_best_arm_survives_and_its_model_is_delivered() -> None:
    run = federation(study(), arms=27).run()
    first = list(run.measured.items())[:27]
    survivors = next(note for note in run.notes if note.kind == "elimination").details["arms"]
    best = sorted(first, key=lambda pair: pair[1])[:9]
    assert {f"arm {index}" for index in survivors} == {run.arms[number].phase for number, _ in best}
    assert run.delivered.loss == min(run.measured.values())
    assert run.delivered.loss < 0.5 * FIRST_LOSS


def test_a_round_goes_on_from_its_arms_last_model() -> None:
    run = federation(study(), arms=3, longest=20).run()
    for arm in run.arms.values():
        for parent in arm.parents:
            assert run.arms[parent].phase == arm.phase
        assert arm.rounds == 1
        assert arm.local_validation
        assert len(arm.points) == 10


def test_the_server_part_is_the_arms_and_the_clients_part_lies_in_a_box() -> None:
    run = federation(study(), arms=9, longest=30, radius=0.05).run()
    for phase in {arm.phase for arm in run.arms.values()}:
        points = [point for arm in run.arms.values() if arm.phase == phase for point in arm.points]
        assert len({point["server_lr"] for point in points}) == 1
        logs = [math.log10(float(point["lr"])) for point in points]
        assert max(logs) - min(logs) <= 2 * 0.05 * 4 + 1e-9


def test_the_update_is_algorithm_2s() -> None:
    """θ rebuilt by hand from what clients told, and then dealt from, gives the arms that the tuner proposed."""
    spec = study(budget={"rounds": 12})
    tuner = FedexTuner(spec, FedexOptions(wrapper="random", arms=1, configurations=5, baseline_discount=0.5))
    run = Federation(tuner, spec).run()
    configurations: list[Any] = []
    for point in (point for arm in run.arms.values() for point in arm.points):
        if point not in configurations:
            configurations.append(point)
    assert len(configurations) <= 5
    theta = ExponentiatedGradient(5, "aggressive", 0.5)
    results = tuner.state()["results"]
    for number in range(12):
        drawn = [configurations.index(point) for point in run.arms[number].points]
        clients = results[str(number)]["clients"]
        theta.update(
            [drawn[client.get("point", 0)] for client in clients],
            [client["loss_after"] for client in clients],
            [client["validation_samples"] for client in clients],
        )
        if number < 11:
            assert run.arms[number + 1].hyperparameters == configurations[theta.likeliest]


def test_diverging_clients_turn_theta_away() -> None:
    spec = study(budget={"rounds": 40}, space={"lr": {"low": 0.05, "high": 3.0, "log": True}})
    run = federation(spec, wrapper="random", arms=1, radius=1.0).run()
    ended = [point for number in range(30, 40) for point in run.arms[number].points]
    diverged = sum(gain(point) < 0 for point in ended)
    assert diverged < 0.1 * len(ended)
    assert abs(math.log10(float(run.arms[39].hyperparameters["lr"])) - math.log10(BEST_LR)) < 0.7


def test_same_seed_same_arms_and_another_seed_others() -> None:
    one, two = federation(study()).run(), federation(study()).run()
    other = federation(study(seed=4)).run()
    assert one.arms == two.arms
    assert one.arms != other.arms


@pytest.mark.parametrize("after", [0, 1, 5, 40, 89])
def test_a_restart_changes_nothing(after: int) -> None:
    spec = study(budget={"rounds": 60, "rounds_per_trial": 30}, parallel_trials=2)
    whole = federation(spec, arms=9).run()
    cut = federation(spec, arms=9)
    cut.run(until=lambda: len(cut.arms) - len(cut.open) >= after)
    cut.restart(FedexTuner(spec, FedexOptions(arms=9)))
    cut.run()
    assert cut.arms == whole.arms
    assert cut.tuner.delivers() == whole.tuner.delivers()


def test_arms_train_together_as_the_study_allows() -> None:
    spec = study(parallel_trials=3)
    run = federation(spec, arms=9, longest=30).run()
    assert [run.arms[number].phase for number in range(6)] == ["arm 0", "arm 1", "arm 2"] * 2
    assert run.spent.rounds <= 90


def test_an_arm_that_fails_is_out_and_its_rounds_go_to_the_survivor() -> None:
    def fails(arm: Arm) -> bool:
        return arm.phase in ("arm 0", "arm 1")

    spec = study()
    run = Federation(FedexTuner(spec, FedexOptions(arms=3, longest=30)), spec, fails=fails).run()
    assert sum(arm.phase == "arm 0" for arm in run.arms.values()) == 1
    assert sum(arm.phase == "arm 2" for arm in run.arms.values()) == 88
    assert run.spent.rounds == 90


def test_nothing_is_delivered_where_everything_fails() -> None:
    spec = study()
    run = Federation(FedexTuner(spec, FedexOptions(arms=3)), spec, fails=lambda arm: True).run()
    assert run.tuner.delivers() is None


def test_there_is_a_model_to_deliver_from_the_first_round_on() -> None:
    run = federation(study(), arms=9)
    run.run(until=lambda: len(run.arms) > 1)
    assert run.delivered.rounds >= 1


def test_the_study_stops_within_its_client_rounds() -> None:
    spec = study(budget={"client_rounds": 415, "rounds_per_trial": 30})
    run = federation(spec).run()
    assert run.spent.client_rounds == 410


def test_a_space_without_client_parameters_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="FedEx tunes those: add one"):
        FedexTuner(study(space={"server_lr": TWO_RATES["server_lr"]}), FedexOptions())


def test_the_journal_has_little_to_say_of_a_round() -> None:
    run = federation(study(), arms=9).run()
    state = json.dumps(run.state)
    assert "c0" not in state
    assert len(state) / len(run.arms) < 2500
    client = run.state["results"]["5"]["clients"][0]
    assert "losses" not in client
    assert "step_ms" not in client
