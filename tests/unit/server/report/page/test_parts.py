"""The parts of a report: the study file in it, what mattered, amounts, the loss beside the objective."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from unit.server.report.arms import NOW, arm, story
from unit.server.report.page.stories import by_arms, by_trials, spec, trials

from fedstep.common.space import Space
from fedstep.common.spec import EvaluationPolicy, Plugin, RoundPolicy, StudySpec
from fedstep.common.study_file import read_study
from fedstep.server.report.courses import courses_of
from fedstep.server.report.page.again import holdings_digest, study_toml
from fedstep.server.report.page.blocks import Table
from fedstep.server.report.page.importances import comparison_of, importances
from fedstep.server.report.page.story import Holding
from fedstep.server.report.page.took_part import participation_section
from fedstep.server.report.units import bytes_text, duration_text, seconds_text
from fedstep.server.storage.base import Event, TrialRecord, TrialState

ROOT = Path(__file__).resolve().parents[5]
STUDIES = [*ROOT.glob("examples/**/*.toml"), ROOT / "server/fedstep/server/cli/demo.toml"]


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_the_study_file_of_a_report_is_the_same_study(file: Path) -> None:
    read = read_study(file)
    assert StudySpec.model_validate(tomllib.loads(study_toml(read))) == read


def test_so_is_that_of_a_study_with_everything_changed() -> None:
    options = {
        "name": "optuna",
        "sampler": "TPESampler",
        "sampler_options": {"multivariate": True, "names": ["a", 'b"']},
    }
    changed = spec(
        seed=2**62,
        space=Space.model_validate({"kind": {"choices": ['a"b', "c\\d", "e\nf"]}, "flip": {"choices": [True, False]}}),
        hyperparameters={"lr": 1e-7, "optimizer": "adam"},
        tuner=Plugin.model_validate(options),
        selector=Plugin(name="random"),
        round=RoundPolicy(mode="buffered", buffer_size=3, cohort_size=5),
        evaluation=EvaluationPolicy(held_out=False),
    )
    assert StudySpec.model_validate(tomllib.loads(study_toml(changed))) == changed


def test_the_digest_of_who_has_what_depends_on_it_and_not_on_the_order() -> None:
    two = [Holding("a", 1, 2), Holding("b", 3, 4)]
    assert holdings_digest(two) == holdings_digest(two[::-1])
    assert holdings_digest(two) != holdings_digest([two[0], replace(two[1], train_samples=4)])


def test_what_made_trials_good_has_the_greatest_share() -> None:
    space = Space.model_validate({"lr": {"low": 0.0, "high": 1.0}, "momentum": {"low": 0.0, "high": 0.9}})
    found = [
        TrialRecord(
            number, TrialState.COMPLETED, {"lr": number / 40, "momentum": 0.9 * (number * 7 % 40) / 40}, (value,)
        )
        for number in range(40)
        for value in [1 - abs(number / 40 - 0.7)]
    ]
    study = replace(by_trials().study, spec=spec(space=space))
    shares = importances(space, courses_of(study, found), "maximize")
    assert next(iter(shares)) == "lr"
    assert sum(shares.values()) == pytest.approx(1.0)
    alike = [replace(trial, hyperparameters={**trial.hyperparameters, "momentum": 0.5}) for trial in found]
    assert importances(space, courses_of(study, alike), "maximize") == {"lr": 1.0, "momentum": 0.0}


def test_too_few_trials_and_trials_that_are_all_alike_say_nothing() -> None:
    study = by_trials().study
    few = courses_of(study, trials()[:3])
    assert importances(study.spec.space, few, "maximize") == {}
    alike = courses_of(study, [replace(trial, values=(0.5,)) for trial in trials()[:5]])
    assert importances(study.spec.space, alike, "maximize") == {}


def test_compared_are_complete_trials() -> None:
    assert [course.trial.number for course in comparison_of(by_trials()).courses] == [0, 1, 2, 3, 4]


def test_of_arms_are_compared_those_that_began_alike_or_each_beside_the_others_of_its_fork() -> None:
    screen = [arm(number, 0.1 * number, 2.0 + number, phase="screen", rounds=1) for number in range(1, 5)]
    begun_alike = comparison_of(by_arms(trials=[*screen, *story()[5:]]))
    assert [course.trial.number for course in begun_alike.courses] == [1, 2, 3, 4]
    forks = comparison_of(by_arms())
    differences = {course.trial.number: course.score for course in forks.courses}
    assert differences == pytest.approx({6: 0.05, 7: -0.05, 9: -0.25, 10: 0.25})
    assert forks.metric == "loss beside"


def test_beside_the_objective_stands_the_loss_of_the_same_rounds() -> None:
    beside = by_trials().beside()
    assert beside is not None
    assert beside.study.spec.objective.metric == "loss"
    assert beside.trials[4].values == (pytest.approx(0.5), None, pytest.approx(0.3))
    assert beside.best is not None
    assert beside.best.number == 4  # which is the best does not change


def test_beside_a_loss_stands_the_training_loss_and_beside_nothing_nothing() -> None:
    beside = by_arms().beside()
    assert beside is not None
    assert beside.study.spec.objective.metric == "train_loss"
    assert by_trials(events=[]).beside() is None


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (19_234, "19.2 kB"), (999_600, "1 MB"), (123_456_789, "123 MB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0042, "4 ms"),
        (1, "1 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (86_400 * 10, "10 days"),
        (math.nextafter(1.0, 0.0), "1 s"),
    ],
)
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.02716, "0.0272 s"), (2.20716, "2.21 s"), (10.0, "10 s"), (1234.5, "1,230 s")],
)
def test_seconds_in_a_sentence(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_late_trainings_late_measurements_and_more_time_are_told_apart() -> None:
    late = [("client_late", {"client": "anna", "work": work}) for work in ("train", "evaluate", "evaluate")]
    told = [*late, ("round_put_off", {"clients": ["anna", "ben"]})]
    events = [Event(kind, "", details, number, NOW) for number, (kind, details) in enumerate(told)]
    *_, troubles = participation_section(replace(by_trials(), events=events), ()).blocks
    assert isinstance(troubles, Table)
    assert troubles.headings == ["client", "given more time", "late", "late measuring"]
    assert troubles.rows == [["anna", "1", "1", "2"], ["ben", "1", "", ""]]
