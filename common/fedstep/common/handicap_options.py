"""A handicap as commands take it."""

import re
from datetime import timedelta

import click

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)/s")
_BYTES = {"B": 1, "kB": 1e3, "KB": 1e3, "KiB": 2**10, "MB": 1e6, "MiB": 2**20, "GB": 1e9, "GiB": 2**30}

MOST_SLOWDOWN = 1000.0
LEAST_BYTES_PER_S = 64 * 1024
"""A chunk of a mebibyte then takes 16 s; a coordinator gives a transfer up in which nothing moves for 20."""


class SlowdownType(click.ParamType[float]):
    """How many times as long."""

    name = "TIMES"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads it."""
        try:
            times = float(str(value))
        except ValueError:
            times = 0.0
        if not 1 <= times <= MOST_SLOWDOWN:
            self.fail(f"{value} is no slowdown: give how many times as long, from 1 to {MOST_SLOWDOWN:g}.", param, ctx)
        return times


class StallsType(click.ParamType[tuple[float, float]]):
    """`EVERY:LASTING`, two durations, in seconds."""

    name = "EVERY:LASTING"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Reads it."""
        if isinstance(value, tuple):
            return value
        every, _, lasting = str(value).partition(":")
        every_s, lasting_s = _seconds(every), _seconds(lasting)
        if not 0 < lasting_s < every_s:
            text = "give how often and then, shorter, how long, such as 30s:10s."
            self.fail(f"{value} is no rhythm of stalls: {text}", param, ctx)
        return every_s, lasting_s


class BandwidthType(click.ParamType[float]):
    """`2MiB/s`, in bytes a second."""

    name = "RATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads it."""
        if isinstance(value, float):
            return value
        read = _SIZE.fullmatch(str(value).strip())
        rate = float(read[1]) * _BYTES[read[2]] if read else 0.0
        if rate < LEAST_BYTES_PER_S:
            self.fail(f"{value} is no bandwidth: give one such as 2MiB/s or 500kB/s, at least 64KiB/s.", param, ctx)
        return rate


class DurationType(click.ParamType[float]):
    """A duration such as `10m`, in seconds."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads it."""
        if isinstance(value, float):
            return value
        if not (seconds := _seconds(str(value))) > 0:
            self.fail(f"{value} is no duration: give one such as 30s, 10m or 2h.", param, ctx)
        return seconds


def _seconds(text: str) -> float:
    """A duration as study files have it; 0 where it is none."""
    # Late: `fedstep --help` needs no pydantic.
    from pydantic import TypeAdapter, ValidationError

    from fedstep.common.spec import PositiveDuration

    try:
        duration: timedelta = TypeAdapter(PositiveDuration).validate_python(text)
    except ValidationError:
        return 0.0
    return duration.total_seconds()
