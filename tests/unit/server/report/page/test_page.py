"""A report, read as a browser reads it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from unit.server.report.arms import NOW
from unit.server.report.page.stories import (
    DIGEST,
    SPACE,
    Page,
    by_arms,
    by_trials,
    cells,
    cost,
    in_state,
    page_of,
    spec,
    words,
)

from fedstep.common.space import Space
from fedstep.common.spec import Objective
from fedstep.server.report.courses import courses_of
from fedstep.server.report.page import page as page_module
from fedstep.server.report.page.page import write_report
from fedstep.server.report.page.story import Holding, Story
from fedstep.server.report.participation import Share, participation_text
from fedstep.server.storage.base import BEST_FINAL_ROUND, Event, StudyRecord, StudyState, TrialRecord, TrialState

SECTIONS = ["result", "search", "cost", "clients", "again"]
HOSTILE = "<script>alert('#1c7ed6')</script>\"'&url(#x)$^"


@pytest.fixture(scope="module")
def of_trials(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(by_trials(), tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="module")
def of_arms(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(by_arms(), tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(hostile_story(), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(params=["of_trials", "of_arms", "hostile"])
def any_page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.getfixturevalue(request.param)
    return found


def hostile_story() -> Story:
    """Every text that somebody else chooses is markup."""
    story = by_trials()
    space = Space.model_validate({**SPACE, "kind": {"choices": [HOSTILE, "plain"]}})
    objective = Objective(metric=HOSTILE, direction="maximize")
    names = [Share(f"{HOSTILE}{share.client}", share.asked, share.taken, share.missed) for share in story.shares]
    trouble = [Event("client_late", HOSTILE, {"client": HOSTILE}, 1000, NOW), Event(HOSTILE, HOSTILE, {}, 1001, NOW)]
    told = {"fedstep": HOSTILE, HOSTILE: "1"}
    return replace(
        story,
        study=replace(story.study, spec=spec(task=HOSTILE, space=space, objective=objective), message=HOSTILE),
        trials=[replace(t, hyperparameters={**t.hyperparameters, "kind": HOSTILE}) for t in story.trials],
        events=[replace(story.events[0], details={"versions": told}), *story.events[1:], *trouble],
        took_part=participation_text(names),
        shares=names,
        holdings=[Holding(HOSTILE, 1, 1)],
        cost=cost([HOSTILE, "anna"]),
    )


def test_every_section_says_in_a_sentence_what_to_see(any_page: Page) -> None:
    assert [section.get("id") for section in any_page.root.iter("section")] == SECTIONS
    links = [link.get("href") for link in any_page.root.iter("a")][: len(SECTIONS)]
    assert links == [f"#{key}" for key in SECTIONS]
    assert all(len(any_page.see(key)) > 20 for key in SECTIONS)
    for figure in any_page.root.iter("figure"):
        assert figure[0][0].tag == "h3"
        assert len(words(figure[0][1])) > 20


def test_the_result_says_what_was_measured_on_what_and_with_which_hyperparameters(of_trials: Page) -> None:
    assert (
        of_trials.see("result") == "The final model reaches accuracy 0.9100 on held-out data that no client has seen."
    )
    assert of_trials.tiles("result") == {
        "accuracy, on held-out data": "0.9100",
        "loss, on held-out data": "0.3500",
        "rounds behind the model": "3",
        "trial": "4",
    }
    assert of_trials.rows("searched in") == [
        ["lr", "0.5", "from 0.001 to 1, on a log scale"],
        ["batch_size", "8", "one of [8, 16]"],
        ["momentum", "0.4", "from 0 to 0.9"],
    ]


def test_how_it_was_found_is_drawn_and_told(of_trials: Page) -> None:
    charts = ["objective", "loss", "tried", "hyperparameters", "parallel", "importances"]
    assert of_trials.charts == [*charts, "spending", "rounds", "work", "participation"]
    assert "6 of 6 trials, 16 rounds: 5 completed, 1 pruned" in of_trials.see("search")
    assert of_trials.rows("decision") == [
        ["16", "trial pruned", "Trial 5 is pruned.", "0.0500 beside 0.3000, the median of 5 completed trials"]
    ]
    rows = of_trials.rows("hyper-parameters")
    assert rows[4] == ["★ 4", "completed", "3", "0.7000", "lr 0.5, batch_size 8, momentum 0.4"]
    assert rows[5] == ["5", "pruned", "1", "0.0500", "lr 0.9, batch_size 16"]


def test_a_step_wise_study_shows_its_tree_its_decisions_and_its_schedule(of_arms: Page) -> None:
    assert of_arms.charts[:2] == ["objective", "loss"]
    assert of_arms.rows("decision")[-1][2:] == [
        "adoption",
        "The challenger is adopted.",
        "z −2.5, mean difference −0.03, n 20; lr 0.06 → 0.08",
    ]
    schedule = next(
        [[words(cell) for cell in row] for row in table.iter("tr")]
        for table in of_arms.section("result").iter("table")
        if "phase" in words(table)
    )
    assert schedule[1:] == [
        ["1–2", "screen", "lr 0.1"],
        ["3–6", "advance, fork", "lr 0.1 → 0.06; then the mean with a model of lr 0.06 → 0.08"],
        ["7–8", "fork", "lr 0.06 → 0.08"],
        ["9–10", "settle", "lr 0.08 → 0.03"],
    ]
    assert of_arms.rows("from")[8][:6] == ["8", "mean", "6+7", "completed", "at 6", "1.0000"]


def test_what_it_cost_is_told_by_purpose_and_by_client(of_trials: Page) -> None:
    assert of_trials.see("cost") == (
        "It took 16 rounds and 48 MB in 9 s; 81% of the bytes and 13 of the rounds were tuning."
    )
    assert of_trials.tiles("cost")["client-rounds: trainings asked of clients"] == "64"
    assert of_trials.rows("tuning")[0] == [
        *("training the delivered model", "", "1", "3", "12", "6 MB", "3 MB", "1.5 s", "24 s")
    ]
    assert of_trials.rows("tuning")[-1][3:5] == ["16", "64"]
    assert of_trials.rows("trainings")[0] == ["anna", "8", "4", "2 MB", "1 MB", "30 s", "2 s"]
    assert "about 3.3 s of the coordinator's CPU" in words(of_trials.section("cost"))


def test_who_was_left_out_and_who_was_late(of_trials: Page) -> None:
    assert of_trials.see("clients").startswith("1 of 3 clients trained less than half as much")
    assert of_trials.rows("clients")[0] == ["little or none", "1", "16.0", "1.0", "3.0", "100%", "1.60 × the mean"]
    assert of_trials.rows("late, and taken later") == [["slow", "3", "1"]]


def test_it_says_what_makes_the_study_again(of_trials: Page) -> None:
    told = {row[0]: row[1] for row in cells(of_trials.section("again"))}
    assert told["model, SHA-256"] == DIGEST.hex()
    assert told["torch"] == "2.13.0"
    assert told["seed"] == "7"
    assert told["data"] == "3 clients, 240 training and 40 validation samples"
    assert "Who was late (1 client)" in words(of_trials.section("clients"))
    (link,) = (one for one in of_trials.section("again").iter("a"))
    assert link.get("download") == "digits.toml"
    assert link.get("href", "").startswith("data:text/plain")


def test_it_needs_nothing_but_itself(any_page: Page) -> None:
    for element in any_page.elements:
        assert element.tag not in ("script", "link", "iframe", "object", "embed", "img", "image", "foreignObject")
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "action", "formaction", "ping", "poster")
            if name == "href":
                assert value.startswith(("#", "data:text/plain;charset=utf-8,"))
    styles = "".join(words(style) for style in any_page.root.iter("style"))
    assert "url(" not in styles.replace("url(#", "")
    assert "@import" not in styles
    (policy,) = (m.get("content") for m in any_page.root.iter("meta") if "http-equiv" in m.attrib)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_others_have_named_stays_text(hostile: Page) -> None:
    assert not list(hostile.root.iter("script"))
    for key in ("result", "search", "clients", "again"):
        assert HOSTILE[:8] in words(hostile.section(key))
    named = [words(text) for text in hostile.root.iter("text") if HOSTILE[:8] in words(text)]
    assert named  # in charts, too
    assert not [text for text in named if "var(--" in text]


def test_every_name_is_there_once_and_every_reference_leads_to_one(any_page: Page) -> None:
    names = [element.attrib["id"] for element in any_page.elements if "id" in element.attrib]
    assert len(names) == len(set(names))
    values = [value for element in any_page.elements for value in element.attrib.values()]
    found = {name for value in values for name in re.findall(r"url\(#([^)]+)\)", value)} - {"x"}
    found |= {value[1:] for element in any_page.elements if (value := element.get("href", "")).startswith("#")}
    assert found <= set(names)


def test_colours_follow_the_page_in_light_and_in_dark(any_page: Page) -> None:
    style = "".join("".join(one.itertext()) for one in any_page.root.iter("style"))
    light, dark = style.split("prefers-color-scheme: dark")
    defined = set(re.findall(r"(--[a-z]+):", light))
    assert set(re.findall(r"(--[a-z]+):", dark)) == defined
    drawn = [element.get("style", "") for svg in any_page.root.iter("svg") for element in svg.iter()]
    assert {name for one in drawn for name in re.findall(r"var\((--[a-z]+)\)", one)} <= defined
    assert not [one for one in drawn if "#" in one.replace("url(#", "")]


def test_an_earlier_final_round_that_is_delivered_is_the_one_that_counts(tmp_path: Path) -> None:
    story = by_trials()
    best = story.trials[4]
    details = {**best.details, BEST_FINAL_ROUND: {"rounds": 4, "value": 0.75, "metrics": {}, "model": "00"}}
    longer = replace(best, values=(*best.values, 0.75, 0.72), details=details)
    page = page_of(replace(story, trials=[*story.trials[:4], longer, story.trials[5]]), tmp_path)
    assert page.rows("hyper-parameters")[4][:4] == ["★ 4", "completed", "4 of 5", "0.7500"]
    (course,) = (course for course in courses_of(story.study, [longer]))
    assert (course.end, course.points[-1]) == ((4, 0.75), (5, 0.72))


def test_a_simulated_study_says_so_and_how_to_simulate_it_again(tmp_path: Path) -> None:
    command = "fedstep simulate by-trials.toml --clients 3 --slow-share 0.25"
    page = page_of(replace(by_trials(), simulated=command), tmp_path)
    said = words(page.root)
    assert "Simulated: the clients" in said
    assert command in said
    assert "fedstep study run" not in said
    assert "in virtual time" in said


def test_every_chart_is_there_for_wide_screens_and_for_phones(any_page: Page) -> None:
    for figure in any_page.root.iter("figure"):
        assert [div.get("class") for div in figure.iter("div")] == ["wide", "narrow"]
        wide, narrow = (svg.get("style", "") for svg in figure.iter("svg"))
        assert wide == "max-width: 1056px"
        assert narrow == "max-width: 355px"
        assert all(svg.get("aria-label") for svg in figure.iter("svg"))


def test_every_chart_is_a_picture_beside_it(tmp_path: Path) -> None:
    page = page_of(by_trials(), tmp_path / "new" / "folder")
    pictures = tmp_path / "new" / "folder" / "report"
    assert {path.name for path in pictures.iterdir()} == {f"{chart}.png" for chart in page.charts}
    assert matplotlib.image.imread(pictures / "parallel.png").shape[1] == 1430
    assert {path.name for path in pictures.parent.iterdir()} == {"report", "report.html"}


def test_a_report_that_cannot_be_made_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(tmp_path, by_trials()).read_text()

    def fails(*_: object) -> str:
        raise ValueError("no")

    monkeypatch.setattr(page_module, "render", fails)
    with pytest.raises(ValueError, match="no"):
        write_report(tmp_path, by_arms())
    assert (tmp_path / "report.html").read_text() == before


def nothing_yet(**changes: Any) -> Story:
    empty = {"trials": [], "events": [], "took_part": "", "shares": [], "holdings": [], "cost": None}
    return in_state(StudyState.RUNNING, **{**empty, **changes})


def test_a_study_of_which_nothing_is_known_yet(tmp_path: Path) -> None:
    page = page_of(nothing_yet(), tmp_path)
    assert page.charts == []
    assert page.see("result") == "No model has been measured yet."
    assert page.see("cost") == "It has cost nothing yet."
    assert page.see("clients") == "No client has been asked for a training."
    assert "The study is running: this is what there was on" in words(page.root)
    assert "so there is nothing to draw" in words(page.section("search"))


def test_one_trial_is_not_compared_with_anything(tmp_path: Path) -> None:
    story = by_trials()
    page = page_of(replace(story, trials=[story.trials[4]], events=story.events[:1]), tmp_path)
    assert page.charts[0] == "objective"
    assert not {"parallel", "importances", "hyperparameters", "tried"} & set(page.charts)
    assert "no two trials that can be compared" in words(page.section("search"))
    assert "Decisions: none." in words(page.section("search"))


def test_arms_without_a_fork(tmp_path: Path) -> None:
    story = by_arms()
    page = page_of(replace(story, trials=[story.trials[1]], events=[]), tmp_path)
    assert page.charts[0] == "objective"
    assert page.see("search").endswith("came to 0 of 60 rounds, 1 arms.")


@pytest.mark.parametrize("state", [StudyState.STOPPED, StudyState.FAILED, StudyState.INTERRUPTED])
def test_a_study_that_did_not_complete_says_why(tmp_path: Path, state: StudyState) -> None:
    page = page_of(in_state(state, "it was told to."), tmp_path)
    text = words(page.root)
    assert state.value in text
    assert "it was told to." in text
    assert "trial 4's: accuracy 0.7000 on its evaluation cohort's validation data" in page.see("result")
    assert ("and a later report tells more" in text) is (state is StudyState.INTERRUPTED)


def test_a_study_that_failed_before_its_first_measurement(tmp_path: Path) -> None:
    page = page_of(in_state(StudyState.FAILED, "no client came", trials=[], events=[]), tmp_path)
    assert page.see("result") == "The study failed before any model was measured."


def many_trials() -> Story:
    found = [
        TrialRecord(
            number,
            TrialState.PRUNED if number % 3 else TrialState.COMPLETED,
            {"lr": 10 ** -(1 + number % 20 / 10), "batch_size": 16},
            tuple(0.1 + 0.001 * (number % 500) + 0.02 * at for at in range(1 if number % 3 else 10)),
        )
        for number in range(1002)
    ]
    return by_trials(trials=found)


def test_a_thousand_trials_make_a_page_that_can_still_be_opened(tmp_path: Path) -> None:
    page = page_of(many_trials(), tmp_path)
    assert len(page.text) < 8_000_000
    assert len(page.rows("hyper-parameters")) == 1000
    assert "2 more are left out." in words(page.section("search"))
    assert {"objective", "parallel", "importances"} <= set(page.charts)


def test_a_thousand_clients_are_a_shape_and_not_a_list(tmp_path: Path) -> None:
    names = [f"client-{number:04}" for number in range(1000)]
    shares = [Share(name, 20, 2 if number % 4 == 0 else 20, 0, [1.0]) for number, name in enumerate(names)]
    late = [Event("client_late", "", {"client": name}, number, NOW) for number, name in enumerate(names, start=1)]
    story = by_trials(
        shares=shares,
        took_part=participation_text(shares),
        cost=cost(names),
        events=late,
        holdings=[Holding(name, 1, 1) for name in names],
    )
    page = page_of(story, tmp_path)
    assert len(page.text) < 2_000_000
    assert {"participation", "work"} <= set(page.charts)
    assert len(page.rows("trainings")) == 200
    assert "800 more, who worked less, are left out." in words(page.section("cost"))
    assert "50 more are left out." in words(page.section("clients"))
    assert "800 more are left out." in words(page.section("clients"))


def test_a_study_whose_clients_are_not_told_one_by_one_has_its_sentence(tmp_path: Path) -> None:
    page = page_of(by_trials(shares=[], holdings=[], took_part="3 of 20,000 clients never trained."), tmp_path)
    assert page.see("clients") == "3 of 20,000 clients never trained."
    assert "participation" not in page.charts


def test_trials_beside_the_space_can_be_told_too(tmp_path: Path) -> None:
    """A configuration that was given, or a learning rate that has fallen below the range."""
    story = by_trials()
    strange = replace(story.trials[0], hyperparameters={"lr": 1e-6, "batch_size": 7, "momentum": 2.0})
    partial = replace(story.trials[1], hyperparameters={"own": "x"})
    page = page_of(replace(story, trials=[strange, partial, *story.trials[2:]]), tmp_path)
    assert {"parallel", "tried", "hyperparameters"} <= set(page.charts)
    assert "importances" not in page.charts  # three are left that Optuna can be told of


def test_studies_that_measured_nothing_finite_can_be_told_too(tmp_path: Path) -> None:
    found = [TrialRecord(number, TrialState.FAILED, {"lr": 0.1, "batch_size": 16}, (None,)) for number in range(3)]
    study = StudyRecord(spec(), StudyState.FAILED, NOW, NOW, message="all diverged")
    page = page_of(by_trials(study=study, trials=found, events=[]), tmp_path)
    assert "so there is nothing to draw" in words(page.section("search"))
