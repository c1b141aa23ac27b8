"""A figure as SVG that is a part of a page: its letters are the page's, its colours follow the page's light or dark."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

PALETTE = {
    "#ffffff": "paper",
    "#1f2933": "ink",
    "#7b8794": "faint",
    "#e4e7eb": "grid",
    "#e8590c": "best",
    "#1c7ed6": "blue",
    "#2b8a3e": "green",
    "#c92a2a": "red",
    "#8f9ba8": "grey",
    "#69757f": "slate",
    "#9aa5b1": "pale",
    "#ced4da": "wash",
}
"""The colours of the pictures, and the variable of the page's style sheet that each becomes."""

_COLOR = re.compile("|".join(PALETTE))
_FONT = re.compile(r"font:\s*(?:(bold|\d+)\s+)?([\d.]+)px[^;]*")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_SVG, _HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def inline_svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an element of a page.

    Texts, of whoever they are, stay texts: they are escaped, and nothing of them is taken for a colour or a reference.

    Args:
        figure: What is drawn.
        name: Unique on the page.
        label: What it shows, for those who cannot see it.
    """
    written = io.StringIO()
    # Only the writer of SVG reads these; pictures that are drawn meanwhile as PNG do not change.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata=_METADATA)
    root = ElementTree.fromstring(written.getvalue())
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    elements = list(root.iter())
    used = {reference for element in elements for reference in _references(element)}
    for element in elements:
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            key.rpartition("}")[2]: _styled(value, name) if key == "style" else _named(key, value, name)
            for key, value in element.attrib.items()
            if key != "id" or value in used
        }
    root.attrib = {
        "class": "chart",
        "role": "img",
        "aria-label": label,
        "viewBox": root.attrib["viewBox"],
        "style": f"max-width: {96 * figure.get_size_inches()[0]:.0f}px",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _references(element: ElementTree.Element) -> list[str]:
    """The names of other elements that one refers to."""
    found = [value.removeprefix("#") for key, value in element.attrib.items() if key == _HREF]
    return found + [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]


def _named(key: str, value: str, name: str) -> str:
    """A name, or a reference to one, made unique on the page."""
    if key == "id":
        return f"{name}-{value}"
    if key == _HREF:
        return f"#{name}-{value.removeprefix('#')}"
    return _REFERENCE.sub(rf"url(#{name}-\1)", value)


def _styled(style: str, name: str) -> str:
    style = _FONT.sub(lambda font: f"font-size: {font[2]}px; font-weight: {font[1] or 'normal'}", style)
    style = _REFERENCE.sub(rf"url(#{name}-\1)", style)
    return _COLOR.sub(lambda color: f"var(--{PALETTE[color[0]]})", style)
