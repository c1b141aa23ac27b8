"""Studies to make reports of, and a report as it is read."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

from unit.server.report import arms
from unit.server.report.arms import NOW

from fedstep.common.space import Space
from fedstep.common.spec import Budget, Objective, Plugin, StudySpec
from fedstep.server.report.cost import ClientCost, Purpose, PurposeCost, Spending
from fedstep.server.report.page.page import write_report
from fedstep.server.report.page.story import Holding, Story, ToldCost, delivered
from fedstep.server.report.participation import Share, participation_text
from fedstep.server.storage.base import Event, StudyRecord, StudyResult, StudyState, TrialRecord, TrialState

SPACE: dict[str, Any] = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
    "batch_size": {"choices": [8, 16]},
    "momentum": {"low": 0.0, "high": 0.9, "when": {"batch_size": 8}},
}
DIGEST = bytes(range(32))
_VOID = ("meta", "br", "hr", "img", "link", "input")


class Page(HTMLParser):
    """A report, as a browser takes it apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self._builder = TreeBuilder()
        self.feed(self.text)
        self.close()
        self.root = self._builder.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in _VOID:
            self._builder.end(tag)

    def handle_endtag(self, tag: str) -> None:
        self._builder.end(tag)

    def handle_data(self, data: str) -> None:
        self._builder.data(data)

    @property
    def elements(self) -> list[Element]:
        return list(self.root.iter())

    def section(self, key: str) -> Element:
        (found,) = (one for one in self.root.iter("section") if one.get("id") == key)
        return found

    def see(self, key: str) -> str:
        """The sentence below a section's title."""
        return words(self.section(key)[1])

    def rows(self, heading: str) -> list[list[str]]:
        """The rows of the table that has such a column, those of its head left out."""
        for table in self.root.iter("table"):
            if heading in [words(cell) for cell in table.iter("th")]:
                return cells(table)
        raise AssertionError(f"no table has a column {heading!r}")

    def tiles(self, key: str) -> dict[str, str]:
        """The large figures of a section, by what they are."""
        divs = (one for one in self.section(key).iter("div") if one.find("dt") is not None)
        return {words(one[0]): words(one[1]) for one in divs}

    @property
    def charts(self) -> list[str]:
        return [one.get("id", "").removeprefix("chart-") for one in self.root.iter("figure")]


def cells(element: Element) -> list[list[str]]:
    """The rows of the tables in an element, those of their heads left out."""
    return [[words(cell) for cell in row.iter("td")] for row in element.iter("tr") if row.find("td") is not None]


def words(element: Element) -> str:
    """All text in an element, in one line."""
    return " ".join("".join(element.itertext()).split())


def page_of(story: Story, folder: Path) -> Page:
    return Page(write_report(folder, story))


def spec(**changes: Any) -> StudySpec:
    tables: dict[str, Any] = {
        "name": "digits",
        "task": "digits",
        "seed": 7,
        "space": Space.model_validate(SPACE),
        "objective": Objective(metric="accuracy", direction="maximize"),
        "tuner": Plugin(name="optuna"),
        "budget": Budget(trials=6, rounds_per_trial=3),
    }
    return StudySpec(**{**tables, **changes})


def trials() -> list[TrialRecord]:
    """Six: five complete ones, of which a high lr is good and number 4 the best, and one pruned after a round."""
    found = []
    for number, lr in enumerate((0.01, 0.02, 0.05, 0.2, 0.5)):
        last = 0.3 + 0.1 * number
        point = {"lr": lr, "batch_size": 16} if number % 2 else {"lr": lr, "batch_size": 8, "momentum": 0.1 * number}
        values = (last - 0.2, None, last)
        found.append(TrialRecord(number, TrialState.COMPLETED, point, values, {"accuracy": last, "loss": 1 - last}))
    return [*found, TrialRecord(5, TrialState.PRUNED, {"lr": 0.9, "batch_size": 16}, (0.05,))]


def events(found: Sequence[TrialRecord]) -> list[Event]:
    """The rounds of these trials, each of 0.5 s and four updates, with a loss beside the objective."""
    told: list[tuple[str, str, dict[str, Any]]] = [
        ("study_started", "It begins.", {"versions": {"fedstep": "0.1.0", "torch": "2.13.0"}})
    ]
    for trial in found:
        for index, value in enumerate(trial.values):
            loss = None if value is None else 1 - value
            details = {"trial": trial.number, "round": trial.first_round + index, "value": value, "updates": 4}
            metrics = {"accuracy": value, "loss": loss, "train_loss": 0.5}
            told.append(("round_committed", "", {**details, "metrics": metrics, "evaluators": 2, "seconds": 0.5}))
        kind = "trial_pruned" if trial.state is TrialState.PRUNED else "trial_completed"
        told.append((kind, f"Trial {trial.number} is {trial.state.value}.", {"trial": trial.number}))
    told += [("client_late", "", {"client": "slow"})] * 3 + [("late_update_taken", "", {"client": "slow"})]
    return [
        Event(kind, text, details, number, NOW + timedelta(seconds=number))
        for number, (kind, text, details) in enumerate(told, start=1)
    ]


def cost(clients: Sequence[str] = ("anna", "slow")) -> ToldCost:
    made = Spending(3, 12, 6_000_000, 2_000_000, 3_000_000, 1.5, 20.0, 4.0)
    tried = Spending(13, 52, 26_000_000, 8_000_000, 13_000_000, 6.5, 80.0, 16.0)
    return ToldCost(
        wall_seconds=9.0,
        purposes=[
            PurposeCost(Purpose.DELIVERED, 1, made, 0, False),
            PurposeCost(Purpose.TRIALS, 5, tried, 0, True),
        ],
        clients=[
            ClientCost(name, 8, 4, 2_000_000, 1_000_000, 30.0 - number % 20, 2.0) for number, name in enumerate(clients)
        ],
        tuner_seconds=0.25,
        tuner_cpu_seconds=0.2,
        cpu_seconds=4.0,
        added_cpu_seconds=3.3,
    )


def by_trials(**changes: Any) -> Story:
    """A study of six trials that has ended, measured on held-out data."""
    found = delivered(trials(), 4)
    shares = [Share("anna", 16, 16, 0, [0.9]), Share("bea", 16, 16, 0, [0.8]), Share("slow", 16, 1, 3, [1.6])]
    result = StudyResult(DIGEST, {"accuracy": 0.91, "loss": 0.35}, True, "model.safetensors")
    whole: dict[str, Any] = {
        "study": StudyRecord(spec(), StudyState.COMPLETED, NOW, NOW + timedelta(minutes=2), result=result),
        "trials": found,
        "events": events(found),
        "took_part": participation_text(shares),
        "shares": shares,
        "holdings": [Holding("anna", 100, 20), Holding("bea", 80, 10), Holding("slow", 60, 10)],
        "cost": cost(),
        "written_at": NOW + timedelta(minutes=3),
    }
    return Story(**{**whole, **changes})


def by_arms(**changes: Any) -> Story:
    """A step-wise study: a screen, a fork that was adopted, one that was rejected."""
    found = arms.story()
    details = {"arms": [7, 6], "z": -2.5, "mean_difference": -0.03, "clients": 20}
    adopted = Event("adoption", "The challenger is adopted.", details, 900, NOW)
    return by_trials(
        **{"study": arms.study(), "trials": found, "events": [*events(found), adopted], "cost": None, **changes}
    )


def in_state(state: StudyState, message: str = "", **changes: Any) -> Story:
    """The study of six trials in another state, without a result."""
    story = by_trials(**changes)
    return replace(story, study=replace(story.study, state=state, message=message, result=None))
