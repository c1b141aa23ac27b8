"""Hypothesis strategies for spaces, conditional ones included."""

from typing import Any

from hypothesis import strategies as st

from fedstep.common.space import Space


@st.composite
def float_ranges(draw: st.DrawFn) -> dict[str, Any]:
    """A real range: plain, on a log scale, or with a step."""
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "log":
        low = draw(st.floats(1e-9, 1e3))
        return {"type": "float", "low": low, "high": draw(st.floats(low, 1e6)), "log": True}
    low = draw(st.floats(-1e6, 1e6))
    if kind == "plain":
        return {"type": "float", "low": low, "high": draw(st.floats(low, 2e6))}
    step = draw(st.sampled_from([0.1, 0.25, 0.3, 1.0, 7.5]))
    low = round(draw(st.integers(-100, 100)) * step, 6)
    return {"type": "float", "low": low, "high": round(low + step * draw(st.floats(1.0, 5.9)), 6), "step": step}


@st.composite
def int_ranges(draw: st.DrawFn) -> dict[str, Any]:
    """A whole range: plain, on a log scale, or with a step."""
    log = draw(st.booleans())
    low = draw(st.integers(1 if log else -1000, 1000))
    high = draw(st.integers(low, low + 5000))
    step = 1 if log or high == low else draw(st.integers(1, min(7, high - low)))
    return {"type": "int", "low": low, "high": high, "log": log, "step": step}


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    """Distinct choices of one type."""
    values = draw(
        st.one_of(
            st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True),
            st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True),
            st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
            st.lists(st.floats(-9, 9), min_size=1, max_size=4, unique=True),
        )
    )
    return {"type": "categorical", "choices": values}


@st.composite
def space_tables(draw: st.DrawFn, most: int = 5) -> dict[str, dict[str, Any]]:
    """The `[space]` table of a study file: parameters with conditions on one another, in any order."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=most, unique=True))
    tables: dict[str, dict[str, Any]] = {}
    for name in names:
        table = draw(st.one_of(float_ranges(), int_ranges(), choices()))
        scope = draw(st.sampled_from(["client", "server", "round", None]))
        if scope:
            table["scope"] = scope
        parents = [other for other in tables if tables[other]["type"] != "float"]
        if parents and draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(parents), min_size=1, max_size=2, unique=True))
            table["when"] = {parent: draw(_values_of(tables[parent])) for parent in chosen}
        tables[name] = table
    return {name: tables[name] for name in draw(st.permutations(names))}


def spaces(most: int = 5) -> st.SearchStrategy[Space]:
    """Spaces of up to that many parameters."""
    return space_tables(most).map(Space.model_validate)


def _values_of(table: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    if table["type"] == "categorical":
        return st.lists(st.sampled_from(table["choices"]), min_size=1, max_size=3, unique=True)
    count = (table["high"] - table["low"]) // table["step"]
    steps = st.lists(st.integers(0, count), min_size=1, max_size=3, unique=True)
    return steps.map(lambda ks: [table["low"] + k * table["step"] for k in ks])
