"""The step-wise tuner, rule by rule of `algorithm.md`, on losses that a test makes up; then on a small federation."""

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from contract.federation import Federation
from contract.program_kit import Driver
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.spec import StudySpec
from fedstep.server.tuning.base import Arm, ClientReport, Cost
from fedstep.server.tuning.lineage import Phases
from fedstep.server.tuning.program import Result
from fedstep.server.tuning.registry import create_tuner, validate_tuner
from fedstep.server.tuning.scales import Scales
from fedstep.server.tuning.stepwise import StepwiseTuner
from fedstep.server.tuning.stepwise_options import StepwiseOptions
from fedstep.server.tuning.stepwise_settings import BOUNDS, StepwiseSettings, constant_faults
from fedstep.server.tuning.window import Window

SPACE: dict[str, Any] = {
    "lr": {"low": 1e-4, "high": 1.0, "log": True},
    "momentum": {"low": 0.0, "high": 0.9},
    "batch_size": {"low": 8, "high": 64, "log": True},
    "local_epochs": {"low": 1, "high": 5},
}
START = {"lr": 0.05, "momentum": 0.0, "batch_size": 16, "local_epochs": 1}
CLIENTS = 20
Losses = Callable[[Arm, float], float]
EARLY_SCREEN: dict[str, Any] = {"constants": {"screen_from_rounds": 30}}


def study(tuner: dict[str, Any] | None = None, rounds: int = 200, **changes: Any) -> StudySpec:
    content: dict[str, Any] = {"name": "s", "task": "digits", "seed": 1, "space": SPACE, "budget": {"rounds": rounds}}
    content["selector"] = {"name": "random"}
    tuner = {"name": "stepwise", "start": START, **(tuner or {})}
    spec = StudySpec.model_validate({**content, "tuner": tuner, "round": {"cohort_size": 10}, **changes})
    validate_tuner(spec)
    return spec


def bare(**tuner: Any) -> dict[str, Any]:
    """Options without the opening: the generations begin at once, from the default."""
    return {"use_probe": False, "screen_members": 0, **tuner}


class Script:
    """Runs a tuner's program on made-up losses, and remembers its batches.

    Args:
        spec: The study.
        loss: The mean loss of an arm, from its parents' mean loss; a negative one fails the arm.
        seconds: Of an arm's training.
        steps: What its clients tell of their steps.
        price: What a round at a point is predicted to take.
    """

    def __init__(
        self,
        spec: StudySpec,
        loss: Losses,
        seconds: Callable[[Arm], float] = lambda arm: float(arm.rounds or 0),
        steps: Sequence[float] = (),
        price: Callable[[Hyperparameters], float | None] | None = None,
    ) -> None:
        tuner = create_tuner(spec, "")
        assert isinstance(tuner, StepwiseTuner)
        if price is not None:
            tuner.price = price  # type: ignore[method-assign]  # the journal is tested elsewhere
        self.tuner = tuner
        self.batches: list[list[Arm]] = []
        self.results: dict[int, Result] = {}
        self.means: dict[int, float] = {}
        self.delivered: list[int | None] = []
        program = tuner.program()
        batch = next(program)
        while True:
            self.batches.append(batch)
            results = [self._result(arm, loss, seconds(arm), steps) for arm in batch]
            self.delivered.append(tuner.delivers())
            try:
                batch = program.send(results)
            except StopIteration as end:
                self.delivered.append(end.value)
                break
        self.notes = tuner.notes()

    def _result(self, arm: Arm, loss: Losses, seconds: float, steps: Sequence[float]) -> Result:
        parents = [self.means[parent] for parent in arm.parents]
        mean = loss(arm, sum(parents) / len(parents) if parents else 2.0)
        self.means[arm.number] = mean
        rounds = arm.rounds or 0
        cost = Cost(rounds, arm.clients or 10 * rounds, 1000 * rounds, seconds)
        if mean < 0:
            result = Result(arm, failed="it diverged", cost=cost)
        else:
            wiggle = [0.01 * mean * ((k + arm.number) % 3 - 1) for k in range(CLIENTS)]
            losses = {f"e{k}": mean * (0.5 + k / CLIENTS) + wiggle[k] for k in range(CLIENTS)}
            reports = [ClientReport("c", losses=tuple(steps))] if steps else []
            result = Result(arm, mean, losses=losses, cost=cost)
            result = Result(arm, mean, {}, losses, (), result.steps.joined(reports), cost=cost)
        self.results[arm.number] = result
        return result

    def arms(self, phase: str) -> list[Arm]:
        return [arm for batch in self.batches for arm in batch if arm.phase == phase]

    def rungs(self) -> list[list[Arm]]:
        return [batch for batch in self.batches if any(arm.phase == "screen" for arm in batch)]

    def forks(self) -> list[list[Arm]]:
        return [batch for batch in self.batches if any(arm.phase == "fork" for arm in batch)]

    def legs(self) -> list[list[Arm]]:
        """Batches that train after the screen."""
        return [batch for batch in self.batches if any(arm.phase in ("advance", "fork", "settle") for arm in batch)]

    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]


def falling(arm: Arm, before: float) -> float:
    """Every leg takes a twentieth of the loss away, every measurement nothing."""
    return before * 0.95 if arm.rounds else before


def levelling(arm: Arm, before: float) -> float:
    """Every leg takes a hundredth of the loss away: it falls slowly."""
    return before * 0.99 if arm.rounds else before


def stuck(arm: Arm, before: float) -> float:
    """Training leads nowhere: every leg adds a ten thousandth to the loss."""
    return before * 1.0001 if arm.rounds else before


def by_leg(worth: Callable[[Arm, int, float], float]) -> tuple[list[Arm], Losses]:
    """Losses by leg: of its arm, how many there were with it, and the loss before; a measurement changes nothing.

    Returns:
        The arms that have trained, in their order, and the losses.
    """
    trained: list[Arm] = []

    def loss(arm: Arm, before: float) -> float:
        if not arm.rounds:
            return before
        trained.append(arm)
        return worth(arm, len(trained), before)

    return trained, loss


def challenged(gain: float) -> Losses:
    """What is not the default ends with that much less loss than the default beside it."""

    def loss(arm: Arm, before: float) -> float:
        moved = arm.phase == "fork" and arm.hyperparameters != START
        return falling(arm, before) * (1 - gain if moved else 1)

    return loss


def probed(window: Window) -> Callable[[Phases], Generator[list[Arm], list[Result], Window]]:
    """A probe that asks nobody and finds a window."""

    def probe(phases: Phases) -> Generator[list[Arm], list[Result], Window]:
        yield from ()
        return window

    return probe


# the opening -----------------------------------------------------------------------------------------------------


def test_the_probe_asks_thirty_clients_for_twenty_steps_and_throws_the_updates_away() -> None:
    (probe,) = Script(study(rounds=600), falling).batches[0]
    assert (probe.phase, len(probe.points), probe.clients, probe.max_steps) == ("probe", 30, 30, 20)
    assert (probe.rounds, probe.discard, probe.parents) == (1, True, ())


def test_a_small_budget_is_probed_by_fewer_clients_or_not_at_all() -> None:
    assert len(Script(study(rounds=60), falling).batches[0][0].points) == 12
    for none in (study(rounds=30), study({"use_probe": False}, rounds=600)):
        assert not Script(none, falling).arms("probe")


def test_the_screen_has_seven_points_and_the_default_on_one_cohort_from_the_initial_model() -> None:
    script = Script(study(rounds=600), falling)
    first = script.batches[1]
    assert len(first) == 8
    assert START in [arm.hyperparameters for arm in first]
    assert {(arm.rounds, arm.parents, arm.cohort, arm.every_round) for arm in first} == {(5, (), 0, False)}


def test_the_best_two_and_the_default_go_on_from_their_own_weights_half_as_long_again() -> None:
    worse = {1: 1.0, 2: 0.8, 3: 0.9, 4: 0.7, 5: 1.1, 6: 1.2, 7: 1.3, 8: 1.4}
    script = Script(study(rounds=600), lambda arm, before: worse.get(arm.number, before * 0.9))
    second = script.rungs()[1]
    assert [(arm.parents, arm.rounds, arm.cohort) for arm in second] == [((4,), 8, 0), ((2,), 8, 0), ((1,), 8, 0)]
    assert script.kinds().count("elimination") == 7
    assert goes_on_from_screen(script) == script.batches[1][3].hyperparameters


def test_the_best_and_the_default_train_on_to_a_twentieth_of_the_budget_before_one_is_taken() -> None:
    """What learns fastest in thirteen rounds is not always what is ahead after thirty."""

    def loss(arm: Arm, before: float) -> float:
        if arm.phase != "screen":
            return before
        return (
            (0.5 if arm.hyperparameters == START else 1.0 + 0.01 * arm.number)
            if arm.rounds == 17
            else 1.0 + (0.5 if arm.hyperparameters == START else 0.01 * arm.number)
        )

    script = Script(study(rounds=600), loss)
    _, second, third = script.rungs()
    assert [arm.parents for arm in third] == [(second[0].number,), (second[2].number,)]
    assert goes_on_from_screen(script) == START
    (advance, *_) = script.arms("advance")
    assert advance.parents == (third[1].number,)


def test_nothing_is_left_to_decide_where_the_default_is_the_best() -> None:
    script = Script(study(rounds=600), lambda arm, before: 1.0 + 0.1 * arm.number if arm.phase == "screen" else before)
    assert len(script.rungs()) == 2
    assert goes_on_from_screen(script) == START


def goes_on_from_screen(script: Script) -> Hyperparameters:
    return script.legs()[0][1].hyperparameters


@pytest.mark.parametrize(("better", "goes_on"), [(0.005, True), (0.05, False)])
def test_the_default_goes_on_unless_another_is_noticeably_better(better: float, goes_on: bool) -> None:
    """Where the loss has not begun to fall, a model that can learn no more is surely better, and by next to nothing."""

    def loss(arm: Arm, before: float) -> float:
        return 2.3 * (1 if arm.hyperparameters == START else 1 - better) if arm.phase == "screen" else before

    script = Script(study(rounds=600), loss)
    assert (goes_on_from_screen(script) == START) == goes_on
    assert any("which is not enough" in note.text for note in script.notes) == goes_on


def test_eliminations_come_with_their_evidence() -> None:
    script = Script(study(rounds=600), lambda arm, before: 1.0 + arm.number if arm.phase == "screen" else before)
    note = next(note for note in script.notes if note.kind == "elimination")
    assert note.details["arms"][1] == 1
    assert note.details["clients"] == CLIENTS
    assert note.details["z"] > 2


def test_members_that_fail_are_ranked_last_and_if_all_do_a_gentler_one_starts() -> None:
    script = Script(study(rounds=600), lambda arm, before: -1 if arm.number in (1, 3) else before)
    assert not {(1,), (3,)} & {arm.parents for arm in script.rungs()[1]}
    script = Script(study(rounds=600), lambda arm, before: -1 if arm.phase == "screen" else before)
    first = script.legs()[0]
    assert first[0].parents == ()
    scales = Scales(study(), {})
    least = min(scales.strength(arm.hyperparameters) for arm in script.arms("screen"))
    assert scales.strength(first[0].hyperparameters) < least


@pytest.mark.parametrize(("tuner", "rounds"), [({}, 499), (EARLY_SCREEN, 25)])
def test_a_small_budget_starts_from_the_default(tuner: dict[str, Any], rounds: int) -> None:
    script = Script(study(tuner, rounds=rounds), falling)
    assert not script.arms("screen")
    assert script.legs()[0][1].hyperparameters == START
    assert script.legs()[0][1].parents == ()


def test_under_seconds_the_screen_ranks_by_improvement_per_second() -> None:
    def loss(arm: Arm, before: float) -> float:
        return before - (0.6 if arm.hyperparameters == START else 0.5) if arm.phase == "screen" else before

    def seconds(arm: Arm) -> float:
        return float(arm.rounds or 0) * (5 if arm.hyperparameters == START else 1)

    budget = {"time": "300s", "trials": 10, "rounds_per_trial": 20}
    script = Script(study(EARLY_SCREEN, budget=budget), loss, seconds)
    assert goes_on_from_screen(script) != START
    assert goes_on_from_screen(Script(study(EARLY_SCREEN), loss, seconds)) == START


def test_a_fork_leaves_enough_of_the_budget_to_earn_its_rounds() -> None:
    assert not Script(study(rounds=44), falling).arms("fork")
    assert Script(study({"constants": {"fork_rounds_left": 30}}, rounds=44), falling).arms("fork")
    script = Script(study(rounds=100), falling)
    trained = [sum(arm.rounds or 0 for arm in batch) for batch in script.batches]
    forks = [index for index, batch in enumerate(script.batches) if batch[-1].phase == "fork"]
    assert forks
    assert all(sum(trained[:index]) <= 60 for index in forks)


def test_what_only_the_screen_chooses_has_one_in_a_small_budget_too() -> None:
    assert Script(study({"screen_only": ["batch_size"]}, rounds=100), falling).arms("screen")


# generations -----------------------------------------------------------------------------------------------------


def test_a_leg_is_a_fifth_of_the_rounds_behind_it_from_4_to_12() -> None:
    script = Script(study(bare(use_settle=False, use_forks=False), rounds=300), falling)
    behind = 0
    for _, leg in script.legs()[:-1]:
        assert leg.rounds == round(min(max(behind / 5, 4), 12))
        behind += leg.rounds


def test_every_generation_has_a_cohort_of_its_own_and_measures_its_start_there() -> None:
    script = Script(study(bare()), falling)
    for generation, batch in enumerate(script.legs(), start=1):
        assert {arm.cohort for arm in batch} == {generation}
        assert (batch[0].phase, batch[0].rounds) == ("measure", 0)
        assert {arm.parents for arm in batch} == {batch[0].parents}


def test_every_second_generation_forks_while_the_loss_falls() -> None:
    script = Script(study(bare(use_settle=False)), falling)
    phases = [batch[-1].phase for batch in script.legs()]
    assert phases[:6] == ["advance", "fork"] * 3


def test_every_generation_forks_once_the_loss_falls_slowly() -> None:
    def loss(arm: Arm, before: float) -> float:
        return before * (0.999 if arm.parents else 0.97) if arm.rounds else before

    script = Script(study(bare(use_settle=False)), loss)
    assert [batch[-1].phase for batch in script.legs()][:5] == ["advance"] + ["fork"] * 4


def test_nothing_forks_for_twenty_rounds_while_the_model_is_hardly_better_than_the_initial_one() -> None:
    script = Script(study(bare(use_settle=False)), lambda arm, before: before * 0.999 if arm.rounds else before)
    assert [batch[-1].phase for batch in script.legs()][:7] == ["advance"] * 5 + ["fork"] * 2


def test_forks_begin_as_soon_as_the_model_is_surely_better_than_the_initial_one() -> None:
    script = Script(study(bare(use_settle=False)), lambda arm, before: before * 0.992 if arm.rounds else before)
    # 0.8 % and 1.6 % are less than the 2 % of `screen_gain`, and the third leg's 2.4 % are more.
    assert [batch[-1].phase for batch in script.legs()][:5] == ["advance"] * 3 + ["fork"] * 2


def test_nor_does_what_is_begun_anew() -> None:
    script = Script(study(bare(use_settle=False)), stuck)
    legs = [batch[-1] for batch in script.legs()]
    beginnings = [k for k, arm in enumerate(legs) if not arm.parents]
    assert len(beginnings) == 3
    assert all(arm.phase == "advance" for begun in beginnings for arm in legs[begun : begun + 5])
    assert legs[beginnings[-1] + 5].phase == "fork"  # it has been given up twice: challengers are all that is left


def test_both_children_start_from_one_model_and_train_as_long() -> None:
    for _, stays, moves in Script(study(bare()), falling).forks():
        assert (stays.parents, stays.rounds, stays.cohort) == (moves.parents, moves.rounds, moves.cohort)
        assert stays.hyperparameters != moves.hyperparameters


def test_the_children_are_averaged_and_the_best_of_the_three_goes_on() -> None:
    def loss(arm: Arm, before: float) -> float:
        return before * 0.8 if arm.phase == "mean" else falling(arm, before)

    script = Script(study(bare()), loss)
    fork = script.batches.index(script.forks()[0])
    (mean, *averages), after = script.batches[fork + 1], script.batches[fork + 2]
    assert (mean.parents, mean.rounds) == (tuple(arm.number for arm in script.batches[fork][1:]), 0)
    assert after[0].parents == (mean.number,)
    assert all(arm.of_average for arm in averages)


def test_members_and_children_are_compared_by_the_averages_of_their_models() -> None:
    """A member that ends well and measures badly on average is noisy; the last models alone say the other way."""

    def loss(arm: Arm, before: float) -> float:
        default = arm.hyperparameters == START
        if arm.of_average and arm.rounds == 0:
            return 0.5 if default else 1.5
        return 1.0 if default else 0.9

    averaged = Script(study(rounds=600), loss)
    assert goes_on_from_screen(averaged) == START
    assert {note.kind for note in averaged.notes} >= {"rejection"}
    assert "adoption" not in averaged.kinds()
    last = Script(study({"use_averaged_evidence": False}, rounds=600), loss)
    assert goes_on_from_screen(last) != START


def test_a_challenger_with_better_evidence_is_adopted_and_the_region_widens() -> None:
    script = Script(study(bare()), challenged(0.1))
    fork = script.batches.index(script.forks()[0])
    challenger = script.batches[fork][2]
    assert script.notes[0].kind == "adoption"
    assert script.notes[0].details["z"] < -0.7
    assert script.batches[fork + 2][1].hyperparameters == challenger.hyperparameters


def test_a_challenger_without_evidence_is_rejected() -> None:
    script = Script(study(bare()), challenged(-0.1))
    assert set(script.kinds()) <= {"rejection", "settling", "averaging", "delivery"}
    assert {tuple(arm.hyperparameters.items()) for arm in script.arms("advance")} == {tuple(START.items())}


def test_the_width_follows_the_verdicts_within_its_bounds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    spec = study(bare(use_guard=False), rounds=150)
    tuner = create_tuner(spec, url)
    driver = Driver(tuner, spec).run()
    tuner.close()
    widths = []
    generations = [name for name in optuna.get_all_study_names(url) if "/g" in name]
    for name in sorted(generations, key=lambda name: int(name.split("/g")[1])):
        trial = optuna.load_study(study_name=name, storage=url).trials[-1]
        widths.append((trial.user_attrs["rho"], trial.user_attrs["adopted"]))
    assert len(widths) == len(driver.told("adoption")) + len(driver.told("rejection"))
    for (before, adopted), (after, _) in itertools.pairwise(widths):
        assert after == pytest.approx(min(max(before * (1.3 if adopted else 0.9), 0.05), 0.35))
    assert widths[0][0] == 0.2


@pytest.mark.parametrize(("guard", "kind"), [(True, "rejection"), (False, "adoption")])
def test_early_on_a_challenger_that_trains_less_needs_more_evidence(guard: bool, kind: str) -> None:
    options = bare(use_guard=guard, constants={"rho": 0.35})
    script = Script(study(options), challenged(0.004), steps=(1.0, 1.5, 2.0, 2.5))
    _, stays, moves = script.forks()[0]
    scales = Scales(study(), {})
    assert scales.strength(moves.hyperparameters) < 0.7 * scales.strength(stays.hyperparameters)
    assert -2 < script.notes[0].details["z"] < -0.7
    assert script.notes[0].kind == kind


def test_a_challenger_that_fails_is_rejected_and_one_whose_incumbent_fails_adopted() -> None:
    _, stays, moves = Script(study(bare()), falling).forks()[0]
    failing = Script(study(bare()), lambda arm, before: -1 if arm.number == moves.number else falling(arm, before))
    assert failing.notes[0].kind == "rejection"
    assert not [arm for arm in failing.arms("mean") if moves.number in arm.parents]
    saved = Script(study(bare()), lambda arm, before: -1 if arm.number == stays.number else falling(arm, before))
    assert saved.notes[0].kind == "adoption"
    assert "rewind" not in saved.kinds()


@pytest.mark.parametrize("loss", [-1.0, 3.0])
def test_a_leg_that_raises_the_loss_by_a_tenth_or_diverges_is_gone_back_on(loss: float) -> None:
    script = Script(study(bare()), lambda arm, before: loss if arm.number == 1 else falling(arm, before))
    first, again = script.legs()[:2]
    assert script.notes[0].kind == "rewind"
    assert again[0].parents == first[0].parents == ()
    assert again[1].hyperparameters == {**START, "lr": pytest.approx(0.05 * 0.6)}


def test_a_rise_under_a_tenth_is_let_pass_and_so_is_any_without_rewinding() -> None:
    for spec, loss in [(study(bare()), 2.1), (study(bare(use_rewind=False)), 3.0)]:
        script = Script(spec, lambda arm, before, loss=loss: loss if arm.number == 1 else falling(arm, before))
        assert script.legs()[1][0].parents == (1,)


@pytest.mark.parametrize("phase", ["advance", "settle"])
def test_a_last_model_that_is_worse_than_its_average_is_not_gone_back_on(phase: str) -> None:
    """Who trained last makes a last model noisy, and says nothing of the hyper-parameters."""

    def loss(arm: Arm, before: float) -> float:
        if not arm.rounds and not arm.parents:
            return 2.0
        return 1.45 if arm.phase == phase else 1.0

    script = Script(study(bare()), loss)
    assert script.arms(phase)
    assert "rewind" not in script.kinds()


def test_a_last_model_that_undoes_half_of_what_was_gained_is_gone_back_on_though_averages_still_improve() -> None:
    trained: list[Arm] = []

    def loss(arm: Arm, before: float) -> float:
        if arm.of_average:
            return 1.5 - 0.01 * arm.number
        if not arm.rounds:
            return before
        trained.append(arm)
        return 1.8 if len(trained) == 2 else 1.0

    script = Script(study(bare(use_forks=False, use_settle=False)), loss)
    assert script.kinds().count("rewind") == 1
    assert trained[2].parents == trained[1].parents == (trained[0].number,)


def test_what_is_lost_little_by_little_is_gone_back_on_too() -> None:
    def worth(arm: Arm, legs: int, before: float) -> float:
        slower = arm.hyperparameters["lr"] < START["lr"]
        return before * (0.9 if slower or legs <= 6 else 1.2)

    trained, loss = by_leg(worth)
    script = Script(study(bare(use_forks=False, use_settle=False)), loss)
    assert script.kinds().count("rewind") == 1
    assert trained[9].parents == (trained[5].number,)  # three times a fifth more undo half of what six legs gained
    assert trained[9].hyperparameters == {**START, "lr": pytest.approx(0.05 * 0.6)}
    trained.clear()
    without = Script(study(bare(use_forks=False, use_settle=False, use_rewind=False)), loss)
    assert "rewind" not in without.kinds()


@pytest.mark.parametrize(
    ("space", "rates"), [(SPACE, [0.05 * 0.6, 0.05 * 0.36]), ({"local_epochs": {"low": 1, "high": 5}}, [])]
)
def test_what_is_lost_again_from_the_same_model_is_let_pass(space: dict[str, Any], rates: list[float]) -> None:
    trained, loss = by_leg(lambda arm, legs, before: before * (0.9 if legs <= 6 else 1.2))
    options = bare(use_forks=False, use_settle=False, start={name: START[name] for name in space})
    script = Script(study(options, space=space), loss)
    assert script.kinds().count("rewind") == len(rates)
    again = [arm.hyperparameters.get("lr") for arm in trained[6:] if arm.parents == (trained[5].number,)][1:]
    assert again == pytest.approx(rates)


def test_what_only_looked_lost_on_other_clients_is_not_gone_back_on() -> None:
    trained: list[Arm] = []

    def loss(arm: Arm, before: float) -> float:
        if arm.rounds:
            trained.append(arm)
            return (1.6, 1.2, 1.4, 1.7)[min(len(trained) - 1, 3)]
        return before if len(trained) < 4 else 1.5

    script = Script(study(bare(use_forks=False, use_settle=False, constants={"restart_rounds": 999})), loss)
    asked = [batch for batch in script.batches if [arm.phase for arm in batch] == ["measure", "measure"]]
    assert len(asked) == 1  # and not again on the same values
    assert "rewind" not in script.kinds()


def test_what_has_led_nowhere_after_twenty_rounds_is_begun_anew_with_a_quarter_of_the_learning_rate() -> None:
    trained, loss = by_leg(lambda arm, legs, before: before * (0.9 if arm.hyperparameters["lr"] < 0.02 else 1.001))
    script = Script(study(bare(use_forks=False, use_settle=False)), loss)
    assert [note.kind for note in script.notes].count("rewind") == 1
    assert "after 20 rounds it is no better than the initial model; lr 0.05 → 0.0125" in script.notes[0].text
    first = trained[5]
    assert first.parents == ()
    assert first.hyperparameters == {**START, "lr": pytest.approx(0.05 / 4)}
    assert trained[6].parents == (first.number,)  # and it is not asked again once it has led somewhere


def test_where_the_initial_model_is_not_measured_nothing_is_begun_anew() -> None:
    def loss(arm: Arm, before: float) -> float:
        lost = arm.phase == "measure" and not arm.parents and arm.cohort > 1
        return -1.0 if lost else stuck(arm, before)

    assert "rewind" not in Script(study(bare(use_forks=False)), loss).kinds()


def test_losses_that_are_all_clipped_say_nothing_of_a_beginning() -> None:
    script = Script(study(bare(use_forks=False)), lambda arm, before: (before if arm.parents else 30.0) * 0.99)
    assert "rewind" not in script.kinds()


def test_what_is_begun_anew_is_slower_than_what_was_gone_back_on() -> None:
    """Two legs that ran away take 0.36 of the learning rate; a quarter of what is left begins."""

    trained, loss = by_leg(lambda arm, legs, before: -1 if legs <= 2 else stuck(arm, before))
    script = Script(study(bare(use_forks=False)), loss)
    begun = [arm.hyperparameters["lr"] for arm in trained if not arm.parents]
    assert begun[:4] == pytest.approx([0.05, 0.03, 0.018, 0.0045])
    assert "lr 0.05 → 0.0045" in [note.text for note in script.notes if note.kind == "rewind"][2]


def test_a_space_without_a_much_smaller_learning_rate_has_no_other_beginning() -> None:
    for low, rewinds in [(0.03, 0), (0.02, 1)]:
        space = {**SPACE, "lr": {"low": low, "high": 1.0, "log": True}}
        script = Script(study(bare(use_forks=False), space=space), stuck)
        assert script.kinds().count("rewind") == rewinds


def test_what_never_learnt_does_not_settle() -> None:
    assert "settling" not in Script(study(bare(use_forks=False, use_rewind=False)), stuck).kinds()


@pytest.mark.parametrize(
    ("low", "high", "options", "reason"),
    [
        (
            -1.0,
            1.0,
            {"use_middle": False},
            "0.1 instead of the default's lr 0.05: the nearest end of the effective rates from 0.1 to 1",
        ),
        (
            -1.0,
            math.inf,
            {},
            "0.1 instead of the default's lr 0.05: the nearest end of the effective rates from 0.1 to 1",
        ),
        (-3.0, -1.0, {}, "0.01 instead of the default's lr 0.05: the middle of the effective rates from 0.001 to 0.1"),
    ],
)
def test_what_training_begins_with_instead_of_the_default_is_told(
    low: float, high: float, options: dict[str, bool], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window({"sgd": (low, high)}, margin=0.5)
    monkeypatch.setattr("fedstep.server.tuning.stepwise.probe", probed(window))
    script = Script(study(bare(**options)), falling)
    told = f"Training begins with lr {reason}, which window and space allow."
    assert [(note.kind, note.text) for note in script.notes[:1]] == [("window", told)]


def test_each_value_that_is_not_the_defaults_has_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window({"sgd": (-3.0, -1.0)}, (0.2, 10.0), 0.5)
    monkeypatch.setattr("fedstep.server.tuning.stepwise.probe", probed(window))
    space = {**SPACE, "server_lr": {"low": 0.1, "high": 3.0}}
    script = Script(study(bare(start={"server_lr": 0.1}), space=space), falling)
    told = [note.text for note in script.notes if note.kind == "window"]
    assert [text.partition(":")[0] for text in told] == [
        "Training begins with lr 0.01 instead of the default's lr 0.05",
        "Training begins with server_lr 0.2 instead of the default's server_lr 0.1",
    ]
    assert told[1].endswith(": server_lr / (1 - server_momentum) is kept between 0.2 and 10.")


def test_a_default_that_is_trusted_begins_wherever_it_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedstep.server.tuning.stepwise.probe", probed(Window({"sgd": (-3.0, -1.0)}, margin=0.5)))
    script = Script(study(bare(use_middle=False)), falling)
    assert script.legs()[0][0].hyperparameters["lr"] == 0.05


@pytest.mark.parametrize(("least", "beginnings"), [(-1.7, 1), (-2.0, 2), (-2.6, 3)])
def test_a_learning_rate_that_would_be_too_small_is_no_beginning(
    least: float, beginnings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 0.05 a quarter is 10^-1.9, and a quarter of that 10^-2.5."""
    monkeypatch.setattr("fedstep.server.tuning.stepwise.probe", probed(Window({"sgd": (least, math.inf)})))
    script = Script(study(bare(use_settle=False)), stuck)
    assert sum(batch[-1].parents == () for batch in script.legs()) == beginnings


@pytest.mark.parametrize(
    ("options", "rounds", "rates"),
    [
        ({}, 200, [0.05, 0.05 / 4, 0.05 / 16]),  # twice, and then it goes on
        ({"use_rewind": False}, 200, [0.05]),
        ({"constants": {"restart_rounds": 30}}, 60, [0.05]),  # too little is left for a beginning
    ],
)
def test_it_is_begun_anew_twice_at_most_and_while_the_budget_pays_for_it(
    options: dict[str, Any], rounds: int, rates: list[float]
) -> None:
    script = Script(study(bare(use_forks=False, use_settle=False, **options), rounds), stuck)
    begun = [arm for batch in script.batches for arm in batch if arm.rounds and not arm.parents]
    assert [arm.hyperparameters["lr"] for arm in begun] == pytest.approx(rates)


def test_what_was_gained_counts_from_the_first_generation_that_was_measured() -> None:
    trained: list[Arm] = []

    def loss(arm: Arm, before: float) -> float:
        if arm.rounds:
            trained.append(arm)
            return -1 if len(trained) == 1 else 1.45
        return 1.0 if arm.parents else 2.0

    script = Script(study(bare(use_forks=False, use_settle=False)), loss)
    assert trained[1].parents == ()  # the first one failed
    assert script.kinds().count("rewind") == 1


def test_what_rises_again_from_the_same_model_is_let_pass() -> None:
    script = Script(study(bare(use_settle=False)), lambda arm, before: before + 1.0 if arm.rounds else before)
    starts = [batch[0].parents for batch in script.legs()]
    assert starts[:3] == [(), (), ()]  # twice gone back on
    assert starts[3] != ()


def test_when_everything_fails_the_tuner_ends() -> None:
    script = Script(study(bare()), lambda arm, before: -1 if arm.rounds else before)
    assert len(script.legs()) == 5
    assert script.delivered[-1] is None


def test_under_seconds_a_challenger_that_is_better_but_slow_is_rejected() -> None:
    def challenges(arm: Arm) -> bool:
        return arm.phase == "fork" and arm.hyperparameters != START

    def seconds(arm: Arm) -> float:
        return float(arm.rounds or 0) * (10 if challenges(arm) else 1)

    def loss(arm: Arm, before: float) -> float:
        return before * (0.85 if challenges(arm) else 0.9) if arm.rounds else before

    script = Script(study(bare(), budget={"time": "400s"}), loss, seconds)
    assert script.notes[0].kind == "rejection"
    assert Script(study(bare()), loss, seconds).notes[0].kind == "adoption"


def test_under_seconds_a_challenger_that_the_time_left_cannot_pay_for_is_passed_over() -> None:
    """Challengers take twenty times as long: a fork of four rounds each needs the time of 84."""

    def price(point: Hyperparameters) -> float:
        return 1.0 if point == START else 20.0

    def seconds(arm: Arm) -> float:
        return price(arm.hyperparameters) * (arm.rounds or 0)

    spec = study(bare(use_settle=False, constants={"forks_until": 1.0, "fork_rounds_left": 0}), budget={"time": "300s"})
    script = Script(spec, challenged(-0.5), seconds, price=price)
    spent = 0.0
    for batch in script.batches:
        if batch in script.forks():
            rounds = next(arm.rounds for arm in batch if arm.phase == "fork")
            assert spent + 21 * (rounds or 0) <= 300
        spent += sum(map(seconds, batch))
    assert script.forks()
    dear = next(note for note in script.notes if note.kind == "too_dear")
    assert dear.details["rounds_left"] < 84
    assert len(dear.details["passed_over"]) == 4
    for each in dear.details["passed_over"]:
        assert (each["times_as_long"], each["predicted_seconds"]) == (20.0, 20.0)
        assert set(each["changed"]) <= set(SPACE)
    assert dear.text.startswith("4 challengers are passed over, the first with ")
    assert "a round of it would take 20 s, 20 times as long" in dear.text
    assert script.kinds().count("too_dear") < len(script.legs())
    assert "too_dear" not in Script(spec, challenged(-0.5), seconds).kinds()


def test_the_first_challenger_that_can_be_paid_for_is_tried() -> None:
    """Those with another learning rate are dear: what is tried late has the incumbent's."""
    spec = study(bare(use_settle=False, use_hint=False, constants={"forks_until": 1.0}), budget={"time": "200s"})
    script = Script(
        spec,
        challenged(-0.5),
        lambda arm: float(arm.rounds or 0),
        price=lambda point: 1.0 if point["lr"] == START["lr"] else 60.0,
    )
    assert "too_dear" in script.kinds()
    for fork in script.forks():
        challenger = [arm for arm in fork if arm.phase == "fork"][1]
        assert challenger.hyperparameters["lr"] == START["lr"]


@pytest.mark.parametrize("lag", [-0.5, 0.5])
def test_under_seconds_how_far_averages_lag_behind_decides_nothing(lag: float) -> None:
    """A challenger that learns as much in half the time is adopted, whatever the averages are away from the models."""

    def loss(arm: Arm, before: float) -> float:
        return before + lag if arm.of_average else falling(arm, before)

    def seconds(arm: Arm) -> float:
        rounds = float(arm.rounds or 0)
        return rounds if arm.hyperparameters == START else rounds / 2

    script = Script(study(bare(), budget={"time": "400s"}), loss, seconds)
    assert script.notes[0].kind == "adoption"
    assert script.notes[0].details["difference_in_equal_time"] < 0


def test_the_clients_steps_choose_the_direction_of_a_challenger() -> None:
    for steps, sign in [((1.0, 1.5, 2.0, 2.5), -1), ((2.0, 1.0, 0.3, 0.1), 1)]:
        for _, stays, moves in Script(study(bare()), falling, steps=steps).forks():
            assert sign * (float(moves.hyperparameters["lr"]) - float(stays.hyperparameters["lr"])) > 0


# the end ---------------------------------------------------------------------------------------------------------


def test_forks_stop_and_settling_begins_at_sixty_per_cent() -> None:
    script = Script(study(bare()), levelling)
    spent = 0
    for batch in script.legs():
        late = spent >= 0.6 * 200
        assert (batch[-1].phase == "settle") is late
        spent += sum(arm.rounds or 0 for arm in batch)
    assert not Script(study(bare(use_settle=False)), levelling).arms("settle")


def test_nothing_settles_while_the_loss_falls_well_and_what_settles_goes_on() -> None:
    assert not Script(study(bare()), falling).arms("settle")

    def loss(arm: Arm, before: float) -> float:
        return falling(arm, before) if before > 0.9 or arm.phase == "settle" else levelling(arm, before)

    script = Script(study(bare(use_forks=False), rounds=300), loss)
    phases = [batch[-1].phase for batch in script.legs()]
    first = phases.index("settle")
    assert script.means[script.legs()[first][-1].parents[0]] <= 0.9
    assert first > 0.6 * len(phases)
    assert set(phases[first:]) == {"settle"}


def test_settling_takes_the_learning_rate_along_a_cosine_to_a_tenth() -> None:
    legs = Script(study(bare(use_forks=False), rounds=600), levelling).arms("settle")
    rates = [float(leg.hyperparameters["lr"]) for leg in legs]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == pytest.approx(0.05, rel=0.05)
    assert 0.005 <= rates[-1] < 0.007
    middle = rates[len(rates) // 2]
    assert 0.02 < middle < 0.035


def test_a_settling_leg_that_hurts_is_gone_back_on_and_the_next_is_gentler() -> None:
    state = {"hurt": 0}

    def loss(arm: Arm, before: float) -> float:
        if arm.phase == "settle" and not state["hurt"]:
            state["hurt"] = arm.number
            return before * 1.05
        return levelling(arm, before)

    script = Script(study(bare()), loss)
    first, second, *_ = script.arms("settle")
    assert second.parents == first.parents
    assert second.hyperparameters["lr"] < first.hyperparameters["lr"]
    assert "rewind" in script.kinds()


def test_an_average_of_0_8_a_round_is_kept_from_the_screen_on() -> None:
    script = Script(study(rounds=300), falling)
    for batch in script.batches:
        for arm in batch:
            assert arm.average == (0.0 if arm.phase in ("probe", "average") else 0.8)
    none = Script(study({"use_average": False, "use_averaged_evidence": False}, rounds=300), falling)
    assert {arm.average for batch in none.batches for arm in batch} == {0.0}


@pytest.mark.parametrize("better", [True, False])
def test_the_better_of_the_last_and_the_averaged_model_is_delivered(better: bool) -> None:
    def loss(arm: Arm, before: float) -> float:
        return before * (0.9 if better else 1.1) if arm.of_average else falling(arm, before)

    script = Script(study(bare()), loss)
    last, average = sorted(script.batches[-1], key=lambda arm: arm.of_average)
    assert script.delivered[-1] == (average.number if better else last.parents[0])
    assert script.kinds()[-2:] == ["averaging", "delivery"]


@pytest.mark.parametrize("better", [True, False])
def test_a_delivered_model_has_the_hyper_parameters_of_its_last_rounds_averaged_or_not(better: bool) -> None:
    def loss(arm: Arm, before: float) -> float:
        return before * (0.9 if better else 1.1) if arm.of_average else levelling(arm, before)

    script = Script(study(bare()), loss)
    delivered, last = script.delivered[-1], script.arms("settle")[-1]
    assert delivered is not None
    assert script.results[delivered].arm.of_average == better
    assert script.results[delivered].arm.hyperparameters == last.hyperparameters
    assert script.notes[-1].details["hyperparameters"] == last.hyperparameters
    assert last.hyperparameters["lr"] < START["lr"] / 2


def test_at_all_times_the_model_to_end_with_is_the_last_good_one() -> None:
    script = Script(study(rounds=300), falling)
    for batch, delivered in zip(script.batches, script.delivered, strict=False):
        if batch[0].phase == "measure" and not any(arm.of_average for arm in batch) and batch[0].parents:
            assert delivered in (batch[0].parents[0], *[arm.number for arm in script.arms("average")])


def test_while_it_settles_the_averaged_model_is_delivered_where_it_is_better() -> None:
    script = Script(study(bare()), lambda arm, before: before * 0.5 if arm.of_average else levelling(arm, before))
    settling = [at for at, batch in enumerate(script.batches) if batch[-1].phase == "settle"]
    assert len(settling) > 2
    for at in settling:
        _, after_it = script.batches[at + 1]  # the averages before the leg and after it
        assert script.delivered[at + 2] == after_it.number


def test_models_that_nothing_goes_on_from_are_let_go() -> None:
    spec = study(EARLY_SCREEN, rounds=200)
    driver = Driver(create_tuner(spec, ""), spec, Federation())
    while driver.fill() or driver.open:
        driver.train(min(driver.open))
        assert len(driver.tuner.keeps()) <= 8 + 8  # a rung of the screen and the parents of the next
        if any(arm.phase in ("advance", "fork") for arm in driver.arms.values()):
            assert len(driver.tuner.keeps()) <= 8  # the best there was among them


def test_every_flag_can_be_turned_off() -> None:
    options = {f"use_{what}": False for what in ("probe", "rewind", "hint", "forks", "guard", "settle", "average")}
    options["use_averaged_evidence"] = False
    script = Script(study({**options, "screen_members": 0}), falling)
    assert {arm.phase for batch in script.batches for arm in batch} == {"measure", "advance"}


# a federation ----------------------------------------------------------------------------------------------------


def trained(spec: StudySpec, seed: int = 0, federation: Federation | None = None) -> float:
    federation = federation or Federation(seed=seed)
    driver = Driver(create_tuner(spec, ""), spec, federation).run()
    return federation.quality(driver.delivered())


@pytest.mark.parametrize("lr", [0.0005, 0.5])
def test_it_recovers_from_a_bad_start(lr: float) -> None:
    """Twenty-fold too small a learning rate, and ten-fold too large a one, end near the good start."""
    good = trained(study({"start": START}, rounds=150))
    assert trained(study({"start": {**START, "lr": lr}}, rounds=150)) < good + 0.05


def test_forks_alone_recover_from_a_bad_start() -> None:
    start = {**START, "lr": 0.002}
    stuck = trained(study(bare(start=start, use_forks=False), rounds=200))
    assert trained(study(bare(start=start), rounds=200)) < 0.8 * stuck


def test_it_beats_the_default_trained_for_the_whole_budget() -> None:
    whole = trained(study(bare(use_forks=False, use_settle=False, use_average=False, use_rewind=False), rounds=150))
    assert trained(study(rounds=150)) < whole


@pytest.mark.parametrize(
    "budget",
    [{"client_rounds": 600}, {"payload_bytes": 600_000}, {"time": "6s"}, {"trials": 4, "rounds_per_trial": 15}],
)
def test_any_budget_is_kept_to_and_used(budget: dict[str, Any]) -> None:
    spec = study(budget=budget)
    driver = Driver(create_tuner(spec, ""), spec, Federation()).run()
    assert not driver.open
    spent = {
        "client_rounds": driver.spent.client_rounds / 600,
        "payload_bytes": driver.spent.payload_bytes / 600_000,
        "time": driver.spent.seconds / 6,
        "trials": driver.spent.rounds / 60,
    }[next(iter(budget))]
    assert 0.8 < spent <= 1.1


def test_every_decision_is_told_with_its_evidence() -> None:
    spec = study(EARLY_SCREEN, rounds=200)
    driver = Driver(create_tuner(spec, ""), spec, Federation()).run()
    assert {note.kind for note in driver.notes} >= {"window", "elimination", "settling", "averaging", "delivery"}
    for note in driver.notes:
        assert note.details["arms"]
        if note.kind in ("elimination", "adoption", "rejection", "averaging"):
            assert {"z", "mean_difference", "clients"} <= set(note.details)


# Optuna's view ---------------------------------------------------------------------------------------------------


def test_there_is_a_sub_study_a_generation_with_the_earlier_ones_as_priors(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    spec = study({"sampler": "TPESampler", **EARLY_SCREEN}, rounds=150)
    for _ in range(2):  # the second time as after a restart: nothing is written twice
        tuner = create_tuner(spec, url)
        driver = Driver(tuner, spec, Federation()).run()
        tuner.close()
    names = set(optuna.get_all_study_names(url))
    assert {"s", "s/probe", "s/g0"} < names
    forks = sorted((name for name in names - {"s", "s/probe", "s/g0"}), key=lambda name: int(name[3:]))
    assert len(forks) == len(driver.told("adoption")) + len(driver.told("rejection"))
    for count, name in enumerate(forks):
        found = optuna.load_study(study_name=name, storage=url)
        assert found.direction is optuna.study.StudyDirection.MAXIMIZE
        assert [trial.user_attrs["prior"] for trial in found.trials] == [True] * count + [False]
        (own,) = found.trials[count:]
        assert driver.arms[own.user_attrs["arm"]].hyperparameters == own.user_attrs["point"]
        assert own.user_attrs["parents"] == list(driver.arms[own.user_attrs["arm"]].parents)
    screen = optuna.load_study(study_name="s/g0", storage=url).trials
    assert [trial.state.name for trial in screen].count("COMPLETE") == 1
    assert [trial.state.name for trial in screen].count("PRUNED") == len(screen) - 1


def test_all_arms_are_trials_of_the_study_itself_each_with_the_curve_from_its_first_round(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    spec = study(EARLY_SCREEN, rounds=150)
    for _ in range(2):  # the second time as after a restart: nothing is written twice
        tuner = create_tuner(spec, url)
        driver = Driver(tuner, spec, Federation()).run()
        tuner.concluded("Settle 9 after 150 rounds")
        tuner.close()
    found = optuna.load_study(study_name="s", storage=url)
    assert "step-wise" in found.user_attrs["about"]
    assert found.user_attrs["delivered"] == "Settle 9 after 150 rounds"
    assert found.direction.name.lower() == spec.objective.direction
    trials = {trial.user_attrs["arm"]: trial for trial in found.trials}
    assert len(trials) == len(found.trials)
    assert set(trials) == set(driver.arms)
    assert found.metric_names == [spec.objective.metric]
    for number, trial in trials.items():
        arm = driver.arms[number]
        assert trial.number == number
        assert (trial.params, trial.user_attrs["phase"]) == (dict(arm.hyperparameters), arm.phase or "arm")
        assert trial.user_attrs["parents"] == list(arm.parents)
        if trial.value is not None:
            assert trial.intermediate_values[max(trial.intermediate_values)] == trial.value
        if arm.parents and arm.rounds:
            assert trials[arm.parents[0]].intermediate_values.items() <= trial.intermediate_values.items()


# options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tuner", "field", "words"),
    [
        ({"sampler": "TPESamplr"}, "tuner.sampler", "did you mean `TPESampler`?"),
        ({"sampler": "GridSampler"}, "tuner.sampler", "cannot search a neighbourhood"),
        ({"sampler_options": {"n": 1}}, "tuner.sampler_options", "has none"),
        ({"start": {"lrr": 1.0}}, "tuner.start.lrr", "did you mean `lr`?"),
        ({"start": {"lr": 7.0}}, "tuner.start.lr", "from 0.0001 to 1"),
        ({"screen_only": ["width"]}, "tuner.screen_only", "no parameter"),
        ({"constants": {"rhoo": 1}}, "tuner.constants.rhoo", "did you mean `rho`?"),
        ({"constants": {"use_middle": False}}, "tuner.constants.use_middle", "write it in [tuner] itself"),
        ({"constants": {"leg_least": 1.5}}, "tuner.constants.leg_least", "whole number"),
        (
            {"constants": {"leg_least": 0}},
            "tuner.constants.leg_least",
            "is 0: it must be a whole number from 1 to 1000.",
        ),
        ({"constants": {"leg_most": 6.0}}, "tuner.constants.leg_most", "is 6.0: it must be a whole number"),
        ({"constants": {"leg_least": True}}, "tuner.constants.leg_least", "is true: it must be a whole number"),
        ({"constants": {"leg_least": "4"}}, "tuner.constants.leg_least", "whole number"),
        ({"constants": {"screen_rounds": 1e300}}, "tuner.constants.screen_rounds", "is 1e+300"),
        (
            {"constants": {"screen_share": 1.5}},
            "tuner.constants.screen_share",
            "is 1.5: it must be a number from 0 to 0.8.",
        ),
        ({"constants": {"average": 1.5}}, "tuner.constants.average", "from 0 to 0.999"),
        ({"constants": {"rho": -0.1}}, "tuner.constants.rho", "from 0.001 to 1"),
        ({"constants": {"leg_least": 20}}, "tuner.constants.leg_least", "is 20, above leg_most = 12"),
        ({"constants": {"leg_most": 2}}, "tuner.constants.leg_most", "is 2, below leg_least = 4"),
        ({"use_fork": True}, "tuner.use_fork", "did you mean `use_forks`?"),
    ],
)
def test_wrong_options_are_refused_with_the_fix(tuner: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        study(tuner)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert words in caught.value.violations[0].description


def test_constants_can_be_set() -> None:
    script = Script(study(bare(constants={"leg_least": 6, "leg_most": 6})), falling)
    assert {arm.rounds for arm in script.arms("advance")[:-1]} == {6}  # the last leg takes what is left


def test_every_number_has_bounds_and_a_default_within_them() -> None:
    own = StepwiseOptions.model_fields
    numbers = {name: value for name, value in vars(StepwiseSettings()).items() if name not in own}
    assert numbers.keys() == BOUNDS.keys()
    assert [name for name, value in numbers.items() if not BOUNDS[name].allow(value)] == []


@pytest.mark.parametrize("end", ["least", "most"])
def test_a_study_ends_with_a_model_wherever_a_constant_is_within_its_bounds(end: str) -> None:
    for name, bounds in BOUNDS.items():
        constants = {**EARLY_SCREEN["constants"], name: getattr(bounds, end)}
        for fault in constant_faults(constants):  # what stands in order goes with it
            other = fault.description.split(f"{'above' if end == 'most' else 'below'} ")[1].split(" =")[0]
            constants[other] = getattr(bounds, end)
        script = Script(study({"constants": constants}, rounds=80), falling)
        assert script.delivered[-1] is not None, constants
