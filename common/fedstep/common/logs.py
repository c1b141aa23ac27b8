"""Log lines that say what they are about: study, trial, round and client stand on every line that concerns one."""

import contextvars
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import click

FIELDS = ("study", "trial", "round", "client")
"""What a line may concern, in the order of the text format."""

FORMATS = ("text", "json")

_CONCERNED: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("fedstep_log_fields")

log_format_option = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How log lines are written to stderr; json: one object a line.",
)


@contextmanager
def concerning(**fields: Any) -> Iterator[None]:
    """Lines that are logged in this block, and by tasks that it starts, concern these.

    Args:
        fields: Of `FIELDS`; what an outer block said of others stays.
    """
    token = _CONCERNED.set({**_CONCERNED.get({}), **fields})
    try:
        yield
    finally:
        _CONCERNED.reset(token)


def set_up_logging(format: str, level: int, stream: TextIO | None = None) -> None:
    """Has this process write its log lines to a stream; stderr unless one is given.

    Args:
        format: One of `FORMATS`.
        level: Lines below it are left out.
        stream: Where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)


class TextLines(logging.Formatter):
    """`2026-01-02 03:04:05,678 INFO fedstep.server.x: What happened. [study=s trial=0 round=1]`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(concerns)s")

    def format(self, record: logging.LogRecord) -> str:
        """One record, with a traceback below it where there is one."""
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        record.concerns = f" [{fields}]" if fields else ""
        return super().format(record)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, what it concerns, and the exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record concerns: what it was logged with, over what its block says."""
    known = {**_CONCERNED.get({}), **getattr(record, "fields", {})}
    return {name: known[name] for name in FIELDS if known.get(name) is not None}
