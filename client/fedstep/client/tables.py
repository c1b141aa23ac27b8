"""Columns of a table, from CSV or Parquet."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedstep.common.errors import InvalidInputError
from fedstep.common.validation import nearest

Column = Sequence[object]
"""A table's column: texts from CSV, whatever it holds from Parquet, where None is nothing."""


def read_columns(path: Path, names: Sequence[str]) -> Mapping[str, Column]:
    """Some columns of a table, by name; no others are kept in memory.

    Args:
        path: A `.csv` with a line of names first, in UTF-8, or a `.parquet`.
        names: Of the columns.

    Raises:
        InvalidInputError: The file cannot be read, or a column is not there.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise InvalidInputError(f"{path} is neither .csv nor .parquet: give one of them with --data FILE.")
    if not path.is_file():
        raise InvalidInputError(f"There is no file {path}: give a .csv or a .parquet with --data FILE.")
    return _read_csv(path, names) if kind == ".csv" else _read_parquet(path, names)


def _read_csv(path: Path, names: Sequence[str]) -> Mapping[str, Column]:
    columns: dict[str, list[object]] = {name: [] for name in names}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check(path, names, header)
            places = [(columns[name].append, header.index(name)) for name in columns]
            for row in reader:
                if row and len(row) != len(header):
                    raise InvalidInputError(
                        f"Line {reader.line_num} of {path} has {len(row)} values and the first one {len(header)} "
                        "names: mend that line."
                    )
                for append, place in places if row else ():
                    append(row[place])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"{path} cannot be read as CSV in UTF-8 ({reason}): mend it.") from error
    return columns


def _read_parquet(path: Path, names: Sequence[str]) -> Mapping[str, Column]:
    try:
        from pyarrow import ArrowException, parquet  # late: of an extra of its own
    except ModuleNotFoundError as error:
        raise InvalidInputError(f'{path} is read with pyarrow: pip install "fedstep[parquet]".') from error
    try:
        _check(path, names, parquet.read_schema(path).names)
        table = parquet.read_table(path, columns=list(dict.fromkeys(names)))
    except (ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0].rstrip(".")
        raise InvalidInputError(f"{path} cannot be read as Parquet ({reason}): make it again.") from error
    return {name: table.column(name).to_pylist() for name in names}


def _check(path: Path, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            near = nearest(name, there)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(there[:20]) or 'none'}."
            raise InvalidInputError(f"{path} has no column {name}: {hint}")
        if there.count(name) > 1:
            raise InvalidInputError(f"{path} has {there.count(name)} columns {name}: give each a name of its own.")
