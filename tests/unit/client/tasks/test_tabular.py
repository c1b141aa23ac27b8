from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedstep.client.tasks.tabular import ColumnMap, TabularTask
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo
from fedstep.common.tasks import load_task

EXAMPLE = Path(__file__).parents[4] / "examples" / "hospitals.py"
HEADER = "hospital,age,comment,pressure,stays,back"


class Simple(TabularTask):
    """No natural column."""

    name = "simple"
    columns = ColumnMap(features=("a", "b"), target="kind", classes=("0", "1"))
    hidden = ()


def write(path: Path, rows: int = 30, header: str = HEADER) -> Path:
    """Rows of three hospitals in turn; the number of stays is the hospital's."""
    lines = [
        f'{"NSW"[row % 3]},{40 + row},"said ""well"", left",{120 + row},{row % 3},{"yes" if row % 4 else "no"}'
        for row in range(rows)
    ]
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "patients.csv")


def load(task: object, path: Path, partition: tuple[int, int] | None = None, **more: str) -> ClientData:
    assert isinstance(task, TabularTask)
    return task.load_data(ClientInfo("ann", partition, {"data": str(path), "validation": "0", **more}))


def tensors(samples: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(samples, torch.utils.data.TensorDataset)
    return samples.tensors


def test_one_hospital_is_one_client(table: Path) -> None:
    task = load_task(str(EXAMPLE))
    of = []
    for index in range(3):
        inputs, targets = tensors(load(task, table, (index, 3)).train)
        assert inputs.shape == (10, 3)
        assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
        of.append(set(inputs[:, 1].tolist()))
        assert task.build_model({})(inputs).shape == (10, 2)
    assert sorted(of, key=min) == [{0.0}, {1.0}, {2.0}]
    inputs, targets = tensors(load(task, table, group="S").train)
    assert inputs[:, 0].tolist() == pytest.approx([(40 + row - 50) / 20 for row in range(1, 30, 3)])
    assert inputs[:, 2].tolist() == pytest.approx([row / 15 for row in range(1, 30, 3)])
    assert targets.tolist() == [int(row % 4 > 0) for row in range(1, 30, 3)]


def test_a_file_of_ones_own_is_all_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.CSV"
    path.write_text("\ufeffa,b,kind\n1,2,0\n\n3e-1,-4,1\n", encoding="utf-8")
    inputs, targets = tensors(load(Simple(), path).train)
    assert inputs.tolist() == [[1.0, 2.0], [pytest.approx(0.3), -4.0]]
    assert targets.tolist() == [0, 1]
    assert len(tensors(load(Simple(), path, (0, 2), partitioner="iid").train)[1]) == 1


def test_rows_may_be_held_out(tmp_path: Path, table: Path) -> None:
    task = load_task(str(EXAMPLE))
    other = write(tmp_path / "other.csv", rows=7)
    assert task.load_held_out({"data": str(table)}) is None
    assert len(tensors(task.load_held_out({"held_out": str(other)}))[1]) == 7


def test_parquet_says_the_same(tmp_path: Path, table: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    path = tmp_path / "patients.parquet"
    parquet.write_table(csv.read_csv(table), path)
    task = load_task(str(EXAMPLE))
    for index in range(3):
        for one, other in zip(
            tensors(load(task, path, (index, 3)).train), tensors(load(task, table, (index, 3)).train), strict=True
        ):
            assert torch.equal(one, other)
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, None], "kind": [True, False]}), path)
    with pytest.raises(InvalidInputError, match=r"Row 2 of .* has nothing in the column b"):
        load(Simple(), path)
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, 1.5], "kind": [1.0, 0.0]}), path)
    assert tensors(load(Simple(), path).train)[1].tolist() == [1, 0]
    with pytest.raises(InvalidInputError, match=r"has no column age: there are a, b, kind\."):
        load(task, path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidInputError, match="cannot be read as Parquet"):
        load(Simple(), path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b,b,kind\n1,2,3,0\n", r"has 2 columns b: give each a name of its own"),
        ("a,b,type\n1,2,0\n", r"has no column kind: there are a, b, type\."),
        ("a,bb,kind\n1,2,0\n", "has no column b: did you mean bb"),
        ("", r"has no column a: there are none\."),
        ("a,b,kind\n", "has no rows"),
        ("a,b,kind\n1,2,0\n1,x,0\n", "Row 2 of .* has 'x' in the column b: every feature must be a number"),
        ("a,b,kind\n1,,0\n", "Row 1 of .* has nothing in the column b"),
        ("a,b,kind\n1,nan,0\n", "has 'nan' in the column b"),
        ("a,b,kind\n1,2,0\n1,-1e39,0\n", "Row 2 of .* has '-1e39' in the column b, too large for float32"),
        ("a,b,kind\n1,2,7\n", r"Row 1 of .* has '7' in the column kind, which is none of the 2 classes \(0, 1\)"),
        ("a,b,kind\n1,2\n", r"Line 2 of .* has 2 values and the first one 3 names"),
        ('a,b,kind\n1,2,"0\n', "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=sentence):
        load(Simple(), path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": ()}, "has no features"),
        ({"features": ("a", "b", "a")}, "names the column a twice"),
        ({"features": ("a", "kind")}, "names the column kind twice"),
        ({"classes": ("0",)}, "classes of a column map are '0': give two or more"),
        ({"classes": ("0", "1", "0")}, "each once"),
        ({"scales": {"bb": (0.0, 1.0)}}, "a scale for bb, which is no feature of it: did you mean b"),
        ({"scales": {"b": (0.0, 0.0)}}, r"scales b by \(0, 0\)"),
        ({"scales": {"b": (float("nan"), 1.0)}}, r"scales b by \(nan, 1\)"),
    ],
)
def test_a_column_map_that_cannot_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        ColumnMap(**{"features": ("a", "b"), "target": "kind", "classes": ("0", "1"), **changes})


def test_files_that_cannot_be_are_named(tmp_path: Path, table: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no file .*none\.csv"):
        load(Simple(), tmp_path / "none.csv")
    with pytest.raises(InvalidInputError, match=r"neither \.csv nor \.parquet"):
        load(Simple(), tmp_path / "table.xlsx")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("a,b,kind\n1,2,ä\n".encode("latin1"))
    with pytest.raises(InvalidInputError, match="as CSV in UTF-8"):
        load(Simple(), latin)
    with pytest.raises(InvalidInputError, match="simple needs its data"):
        Simple().load_data(ClientInfo("ann"))
    with pytest.raises(InvalidInputError, match="3 hospitals cannot be split among 4 clients: have at most 3"):
        load(load_task(str(EXAMPLE)), table, (0, 4))
    with pytest.raises(InvalidInputError, match="group=X is none of the 3 hospitals"):
        load(load_task(str(EXAMPLE)), table, group="X")


def test_a_row_must_be_somebodys(table: Path) -> None:
    table.write_text(table.read_text().replace("\nS,", "\n,", 1))
    with pytest.raises(InvalidInputError, match=r"Row 2 of .* has nothing in the column hospital"):
        load(load_task(str(EXAMPLE)), table)


def test_a_client_of_no_partition_keeps_to_one_hospital(table: Path) -> None:
    inputs, _ = tensors(load(load_task(str(EXAMPLE)), table).train)
    assert len(np.unique(inputs[:, 1])) == 1
