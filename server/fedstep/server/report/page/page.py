"""Puts a report together and writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fedstep.server.report.canvas import WIDTH, save, written_whole
from fedstep.server.report.page.again import again_section
from fedstep.server.report.page.blocks import Section
from fedstep.server.report.page.charts import NARROW, Chart, charts_of
from fedstep.server.report.page.cost import cost_section
from fedstep.server.report.page.result import result_section
from fedstep.server.report.page.search import search_section
from fedstep.server.report.page.story import Story
from fedstep.server.report.page.svg import inline_svg
from fedstep.server.report.page.took_part import participation_section
from fedstep.server.report.units import moment_text

FILE, PICTURES = "report.html", "report"

_TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Drawn:
    """A chart on the page, for wide screens and for phones."""

    wide: Markup
    narrow: Markup


def write_report(folder: Path, story: Story) -> Path:
    """Writes `report.html`, and a PNG a chart into the folder `report` beside it.

    A reader of a file sees the old one or the new one, never half of it.

    Args:
        folder: Made where it is not there.
        story: What is told.

    Returns:
        Where the page is.

    Raises:
        OSError: A file cannot be written.
    """
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    charts = charts_of(story)
    drawn = {}
    for name, chart in charts.items():
        save(chart.draw(WIDTH), pictures / f"{name}.png")
        drawn[name] = _drawn(chart)
    path = folder / FILE
    with written_whole(path) as half:
        half.write_text(render(story, drawn), encoding="utf-8")
    return path


def render(story: Story, drawn: Mapping[str, Drawn]) -> str:
    """The page as a text.

    Args:
        story: What is told.
        drawn: Its charts by name.
    """
    # Every text is escaped, whoever it is from; only the charts are markup already.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["moment"] = moment_text
    source = files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(story=story, sections=sections_of(story, drawn), drawn=drawn)


def sections_of(story: Story, charts: Mapping[str, object]) -> list[Section]:
    """All sections, in order.

    Args:
        story: What is told.
        charts: Those that there are, by name.
    """
    return [
        result_section(story),
        search_section(story, charts),
        cost_section(story, charts),
        participation_section(story, charts),
        again_section(story),
    ]


def _drawn(chart: Chart) -> Drawn:
    return Drawn(
        inline_svg(chart.draw(WIDTH), chart.name, chart.label),
        inline_svg(chart.draw(NARROW), f"{chart.name}-narrow", chart.label),
    )
