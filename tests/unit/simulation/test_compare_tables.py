"""Tables: what stands in them, on a screen and on a page."""

import csv
import io

from rich.console import Console

from fedstep.common.spec import Objective
from fedstep.simulation.statistics import Difference, Row
from fedstep.simulation.tables import Part, as_csv, as_records, details, markdown, overview, print_parts

ACCURACY = Objective(metric="accuracy", direction="maximize")


def row(tuner: str, budget: int, difference: Difference | None = None) -> Row:
    return Row(
        tuner=tuner,
        budget=budget,
        seeds=10,
        mean=0.9512,
        error=0.0021,
        worst=0.938,
        best=0.961,
        midway={60: (0.91, 0.004)},
        reached=4,
        rounds_to_target=None,
        seconds_to_target=None,
        difference=difference,
    )


PAIRED = Difference(10, -0.0312, -0.05, -0.01, 0.00195, 0.0004)
PART = Part(180, "delivered", 0.914, [row("first", 180), row("other[x=1]", 180, PAIRED)])


def test_a_detailed_line_holds_every_figure() -> None:
    headings, first, other = details(PART)
    assert dict(zip(headings, other, strict=True)) == {
        "tuner": "other[x=1]",
        "seeds": "10",
        "at 60": "0.910 ± 0.004",
        "mean": "0.951 ± 0.002",
        "worst": "0.938",
        "best": "0.961",
        "reached": "4/10",
        "rounds": "–",
        "seconds": "–",
        "difference": "-0.031",
        "95 % interval": "-0.050 to -0.010",
        "p (Wilcoxon)": "0.002",
        "p (t)": "<.001",
    }
    assert first[-4:] == ["–"] * 4


def test_a_retraining_has_no_time_to_a_target() -> None:
    headings = details(Part(180, "retrained", None, [row("first", 180)]))[0]
    assert "reached" not in headings


def test_the_overview_has_a_column_for_every_budget() -> None:
    lines = overview([PART, Part(600, "delivered", None, [row("first", 600)])])
    assert lines[0] == ["tuner", "180 rounds", "600 rounds"]
    assert lines[2] == ["other[x=1]", "0.951 ± 0.002 (0.938)", "–"]


def test_a_tuner_with_brackets_is_printed_as_it_is_written() -> None:
    text = io.StringIO()
    print_parts([PART], ACCURACY, Console(file=text, width=300))
    assert "other[x=1]" in text.getvalue()


def test_the_markdown_has_as_many_cells_in_every_line() -> None:
    lines = [line for line in markdown([PART], ACCURACY).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_the_csv_is_not_rounded_and_flat() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([PART]))))
    assert rows[1]["mean"] == "0.9512"
    assert rows[1]["difference_p_wilcoxon"] == "0.00195"
    assert rows[1]["mean_at_60"] == "0.91"
    assert rows[0]["difference_mean"] == ""
    assert as_records([PART])[0]["target"] == 0.914
