"""When clients cannot be reached, from a file: a plain CSV of intervals."""

import csv
import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from fedstep.common.errors import InvalidInputError
from fedstep.common.pauses import Pauses

COLUMNS = ("client", "away_from_s", "away_until_s")
"""The file's first line."""


def read_trace(path: Path) -> dict[str, Pauses]:
    """The absences of every client that the file names.

    A line is an interval: the client's name, and from when until when it is away, in seconds since it was started (in
    a simulation, since that began). The lines may be in any order; one client's intervals do not overlap. Who is not
    named is never away.

    Raises:
        InvalidInputError: The file cannot be read, or a line is no interval.
    """
    periods: dict[str, list[tuple[float, float]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise InvalidInputError(f"{path}:1: the first line of a trace is {','.join(COLUMNS)}: put it there.")
            for row in rows:
                if row:
                    name, period = _interval(row, f"{path}:{rows.line_num}")
                    periods[name].append(period)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is no text"
        raise InvalidInputError(f"The trace {path} cannot be read ({reason}): give a CSV file.") from error
    return {name: _absences(f"{path}: {name}", sorted(theirs)) for name, theirs in periods.items()}


def _interval(row: list[str], where: str) -> tuple[str, tuple[float, float]]:
    try:
        name, begins_s, ends_s = row[0], float(row[1]), float(row[2])
    except (ValueError, IndexError):
        name, begins_s, ends_s = "", math.nan, math.nan
    if len(row) != len(COLUMNS) or not (name and 0 <= begins_s < ends_s < math.inf):
        raise InvalidInputError(
            f"{where}: {','.join(row)[:60]} is no interval: write a client's name and two ascending times in seconds, "
            "such as client-3,120,300."
        )
    return name, (begins_s, ends_s)


def _absences(whose: str, periods: list[tuple[float, float]]) -> Pauses:
    for before, after in pairwise(periods):
        if after[0] <= before[1]:
            raise InvalidInputError(
                f"{whose} is away until {before[1]:g} s and again from {after[0]:g} s: make one interval of the two."
            )
    return Pauses(tuple(periods))
