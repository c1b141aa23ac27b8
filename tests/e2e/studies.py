"""Studies that are over in seconds."""

from pathlib import Path
from typing import Any

from fedstep.common.spec import StudySpec

_TABLES: dict[str, Any] = {
    "name": "s",
    "task": "tiny",
    "seed": 3,
    "space": {"lr": {"type": "float", "low": 0.01, "high": 0.5, "log": True}},
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "tuner": {"name": "random"},
    "selector": {"name": "random"},
    "round": {"min_clients": 1, "deadline": "30s", "wait_for_clients": "60s"},
    "evaluation": {"deadline": "30s"},
    "budget": {"trials": 1, "rounds_per_trial": 2},
}


def tables(**changes: Any) -> dict[str, Any]:
    """A study's tables; a table that is given is merged into the one there, all else takes its place."""
    merged = dict(_TABLES)
    for key, value in changes.items():
        keep = isinstance(value, dict) and isinstance(merged.get(key), dict) and "name" not in value and key != "space"
        merged[key] = {**merged[key], **value} if keep else value
    return merged


def spec(**changes: Any) -> StudySpec:
    """A study of a tiny task."""
    return StudySpec.model_validate(tables(**changes))


def write_study(path: Path, **changes: Any) -> Path:
    """A study as a file."""
    path.write_text("\n".join(_toml(key, value) for key, value in sorted_tables(tables(**changes))) + "\n")
    return path


def sorted_tables(content: dict[str, Any]) -> list[tuple[str, Any]]:
    """Plain values before tables, as TOML wants it."""
    return sorted(content.items(), key=lambda pair: isinstance(pair[1], dict))


def _toml(key: str, value: Any) -> str:
    if not isinstance(value, dict):
        return f"{key} = {_value(value)}"
    return f"[{key}]\n" + "\n".join(f"{name} = {_value(inner)}" for name, inner in value.items())


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict():
            return "{ " + ", ".join(f"{name} = {_value(inner)}" for name, inner in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            return repr(value)
