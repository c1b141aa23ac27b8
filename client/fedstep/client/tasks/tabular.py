"""Classification of a table's rows: a task of one's own in a few lines that say which column is what."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedstep.client.networks import perceptron
from fedstep.client.partitions import Indices
from fedstep.client.tables import Column, read_columns
from fedstep.client.tasks.pooled import Pool, PooledTask, data_path
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Samples
from fedstep.common.validation import nearest


@dataclass(frozen=True)
class ColumnMap:
    """Which column is what.

    Attributes:
        features: Columns of numbers, the model's inputs.
        target: The column that is predicted.
        classes: What the target's column says for class 0, class 1 and so on, as text.
        natural: The column that says whose a row is, such as the hospital; empty where there is none.
        scales: For a feature (what is subtracted, what is then divided by). The same on every client, so it stands
            here and is not taken from anybody's data.
    """

    features: Sequence[str]
    target: str
    classes: Sequence[str]
    natural: str = ""
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks that it can be what it says.

        Raises:
            InvalidInputError: A column has two parts, a class is there twice, or a scale is none.
        """
        twice = [name for name, count in Counter([*self.features, self.target]).items() if count > 1]
        if twice:
            raise InvalidInputError(f"A column map names the column {twice[0]} twice: let each column be one thing.")
        if not self.features:
            raise InvalidInputError("A column map has no features: name the columns of numbers that are the inputs.")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise InvalidInputError(
                f"The classes of a column map are {', '.join(map(repr, self.classes)) or 'none'}: give two or more, "
                "each once."
            )
        for name, (shift, width) in self.scales.items():
            if name not in self.features:
                near = nearest(name, self.features)
                hint = f"did you mean {near}?" if near else "leave it out."
                raise InvalidInputError(f"A column map has a scale for {name}, which is no feature of it: {hint}")
            if not (math.isfinite(shift) and math.isfinite(width) and width > 0):
                raise InvalidInputError(
                    f"A column map scales {name} by ({shift:g}, {width:g}): give what is subtracted, and above 0 what "
                    "is then divided by."
                )


class TabularTask(PooledTask):
    """Which class is this row of? A perceptron on the features.

    A subclass gives a name and a column map. A client with a partition has its share of the table; one without has
    the whole file, or its group of it where there is a natural column.

    Options beside those of every `PooledTask`:
        data: A `.csv` or a `.parquet`.
        held_out: The coordinator's: another such file, of rows that no client has.

    Attributes:
        columns: Which column is what.
        hidden: Width of each hidden layer.
    """

    columns: ClassVar[ColumnMap]
    hidden: ClassVar[tuple[int, ...]] = (32,)
    more_options = ("held_out",)

    def build_model(self, hyperparameters: Hyperparameters) -> nn.Module:
        """Dense layers, see `fedstep.client.networks.perceptron`."""
        return perceptron(len(self.columns.features), self.hidden, len(self.columns.classes))

    def open_pool(self, options: Mapping[str, str]) -> Pool:
        """The table's rows.

        Raises:
            InvalidInputError: The file cannot be read, or a value is not what its column should hold.
        """
        path = Path(data_path(options, self.name, "a .csv or a .parquet"))
        table = self._read(path, [self.columns.natural] if self.columns.natural else [])
        if not self.columns.natural:
            return Pool(table.labels, table.take)
        owners = [_text(value) for value in table.columns[self.columns.natural]]
        if "" in owners:
            raise InvalidInputError(
                f"Row {owners.index('') + 1} of {path} has nothing in the column {self.columns.natural}, so it is "
                "nobody's: fill it, or leave the row out."
            )
        names, groups = np.unique(np.array(owners), return_inverse=True)
        return Pool(table.labels, table.take, groups, tuple(names.tolist()))

    def load_held_out(self, options: Mapping[str, str]) -> Samples | None:
        """The rows of the file `held_out`; None where there is none."""
        if "held_out" not in options:
            return None
        table = self._read(Path(options["held_out"]), [])
        return TensorDataset(*table.take(np.arange(len(table.labels))))

    def own_share(self, pool: Pool) -> Indices:
        """The whole file: it is the client's own."""
        return np.arange(len(pool.labels))

    def _read(self, path: Path, more: Sequence[str]) -> "_Table":
        wanted = self.columns
        columns = read_columns(path, [*wanted.features, wanted.target, *more])
        if not len(columns[wanted.target]):
            raise InvalidInputError(f"{path} has no rows: give a table that has some.")
        features = np.empty((len(columns[wanted.target]), len(wanted.features)), dtype=np.float32)
        for place, name in enumerate(wanted.features):
            shift, scale = wanted.scales.get(name, (0.0, 1.0))
            scaled = (_numbers(path, name, columns[name]) - shift) / scale
            if (large := np.abs(scaled) > np.finfo(np.float32).max).any():
                row = int(np.flatnonzero(large)[0])
                raise InvalidInputError(
                    f"Row {row + 1} of {path} has {columns[name][row]!r} in the column {name}, too large for "
                    "float32: give the column a scale, or leave the row out."
                )
            features[:, place] = scaled
        return _Table(columns, features, _labels(path, wanted.target, columns[wanted.target], wanted.classes))


@dataclass(frozen=True)
class _Table:
    """Columns as read, features [rows, features] float32 and labels [rows]."""

    columns: Mapping[str, Column]
    features: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    labels: Indices

    def take(self, rows: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.features[rows]), torch.from_numpy(self.labels[rows])


def _numbers(path: Path, name: str, column: Column) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    numbers = np.empty(len(column), dtype=np.float64)
    for row, value in enumerate(column):
        try:
            numbers[row] = float(value)  # type: ignore[arg-type]  # what is no number raises
        except (ValueError, TypeError):
            numbers[row] = math.nan
        if not math.isfinite(numbers[row]):
            shown = "nothing" if value in (None, "") else repr(value)
            raise InvalidInputError(
                f"Row {row + 1} of {path} has {shown} in the column {name}: every feature must be a number in every "
                "row; fill it, or leave the row or the column out."
            )
    return numbers


def _labels(path: Path, name: str, column: Column, classes: Sequence[str]) -> Indices:
    of = {text: label for label, text in enumerate(classes)}
    labels = np.empty(len(column), dtype=np.int64)
    for row, value in enumerate(column):
        label = of.get(_text(value))
        if label is None:
            raise InvalidInputError(
                f"Row {row + 1} of {path} has {_text(value)!r} in the column {name}, which is none of the "
                f"{len(classes)} classes ({', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}): add it to the "
                "task's column map, or leave the row out."
            )
        labels[row] = label
    return labels


def _text(value: object) -> str:
    """A value as a CSV would have it: 1 for 1.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()
