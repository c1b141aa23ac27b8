"""What a task may hand over as data."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import batches
from fedstep.common.samples import Columns, as_samples
from fedstep.common.task import ClientData

CPU = torch.device("cpu")


def tensors(samples: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(samples, TensorDataset)
    return samples.tensors


class Squares(Dataset[tuple[torch.Tensor, ...]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index)]), index * index


class Named(Squares):
    def __getitem__(self, index: int) -> Any:
        return {"input": torch.tensor([float(index)]), "label": index}


def test_a_data_set_of_pytorchs_stays_as_it_is() -> None:
    squares = Squares()
    assert as_samples(squares) is squares
    (inputs, targets), *_ = batches(squares, 3, None, CPU)
    assert inputs.tolist() == [[0.0], [1.0], [2.0]]
    assert targets.tolist() == [0, 1, 4]


def test_a_data_set_that_gives_no_pairs_is_told_so() -> None:
    with pytest.raises(InvalidInputError, match=r"Named gives no pairs: let its __getitem__ return \(input, target\)"):
        next(batches(Named(), 3, None, CPU))


@pytest.mark.parametrize(
    ("inputs", "targets", "kinds"),
    [
        (np.zeros((3, 2)), np.arange(3, dtype=np.int32), (torch.float32, torch.int64)),
        (np.zeros((3, 2), np.float16), np.zeros(3, np.float64), (torch.float32, torch.float32)),
        (np.zeros((3, 2), np.uint8), np.array([True, False, True]), (torch.int64, torch.int64)),
        (torch.zeros(3, 2, dtype=torch.float64), [1, 2, 3], (torch.float64, torch.int64)),
    ],
)
def test_arrays_become_tensors(inputs: Any, targets: Any, kinds: tuple[torch.dtype, torch.dtype]) -> None:
    samples = tensors(as_samples((inputs, targets)))
    assert [len(tensor) for tensor in samples] == [3, 3]
    assert tuple(tensor.dtype for tensor in samples) == kinds


def test_arrays_of_the_right_kind_are_not_copied() -> None:
    inputs, targets = np.zeros((3, 2), np.float32), np.arange(3)
    first, second = tensors(as_samples((inputs, targets)))
    assert (first.data_ptr(), second.data_ptr()) == (inputs.ctypes.data, targets.ctypes.data)


def test_clients_data_may_be_of_any_kind() -> None:
    data = ClientData(train=(np.zeros((3, 2)), np.arange(3)), validation=Squares())
    assert len(tensors(data.train)[0]) == 3
    assert isinstance(data.validation, Squares)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"x": 1}, "handed over a dict as data: make it a torch.utils.data.Dataset, a pair of arrays"),
        ((np.zeros(3), np.zeros(2)), "3 inputs and 2 targets"),
        ((np.array(["a", "b"]), np.zeros(2)), "The inputs that a task handed over are <U1, not numbers"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(data: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        as_samples(data)


# Hugging Face's ------------------------------------------------------------------------------------------------------


class StandIn:
    """As much of `datasets.Dataset` as is used of it: for machines that do not have the package."""

    def __init__(
        self, columns: dict[str, Any], features: dict[str, object] | None = None, kind: str | None = None
    ) -> None:
        self._columns = columns
        self.column_names = list(columns)
        self.features = {**dict.fromkeys(columns), **(features or {})}
        self.format = {"type": kind}

    def with_format(self, type: str) -> "StandIn":
        assert type == "numpy"
        return self

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        return self._columns


class Image:
    """What the feature of a column of pictures is called."""


def test_two_columns_are_inputs_and_targets() -> None:
    data = StandIn({"label": np.arange(4), "tokens": np.ones((4, 7), np.int32)})
    assert isinstance(data, Columns)
    inputs, targets = tensors(as_samples(data))
    assert (inputs.shape, inputs.dtype) == ((4, 7), torch.int64)
    assert targets.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("shape", "wanted"), [((4, 5, 6), (4, 1, 5, 6)), ((4, 5, 6, 3), (4, 3, 5, 6))])
def test_pictures_are_channels_first_from_nought_to_one(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    pixels = np.zeros(shape, np.uint8)
    pixels[:, 2, 3] = 255
    inputs, _ = tensors(as_samples(StandIn({"image": pixels, "label": np.arange(4)}, {"image": Image()})))
    assert inputs.shape == wanted
    assert bool((inputs[:, :, 2, 3] == 1).all())
    assert float(inputs.sum()) == wanted[0] * wanted[1]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            StandIn({"a": [], "b": [], "label": []}),
            "the columns a, b, label: leave one input and one target named label",
        ),
        (StandIn({"image": [], "class": []}), "the columns image, class: leave one input"),
        (StandIn({"a": [], "label": []}, kind="custom"), "a transform of its own"),
        (StandIn({"image": np.array([0, "x"], object), "label": [0, 1]}, {"image": Image()}), "differ in size or kind"),
        (StandIn({"words": np.array(["a", "b"]), "label": [0, 1]}), "The column words that a task handed over"),
    ],
)
def test_columns_that_say_too_little_are_refused(data: StandIn, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        as_samples(data)  # type: ignore[arg-type]


def test_hugging_faces_own_data_sets_are_taken() -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed; a stand-in is tested")
    pixels = np.zeros((4, 5, 6, 3), np.uint8)
    pixels[1] = 255
    pictures = datasets.Dataset.from_dict(
        {"image": list(pixels), "label": [0, 1, 2, 1], "id": [7, 8, 9, 10]},
        features=datasets.Features(
            image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]), id=datasets.Value("int64")
        ),
    )
    with pytest.raises(InvalidInputError, match="the columns image, label, id"):
        as_samples(pictures)
    inputs, targets = tensors(as_samples(pictures.remove_columns("id")))
    assert (inputs.shape, inputs.dtype) == ((4, 3, 5, 6), torch.float32)
    assert inputs.mean(dim=(1, 2, 3)).tolist() == [0, 1, 0, 0]
    assert targets.tolist() == [0, 1, 2, 1]
    table = datasets.Dataset.from_dict({"features": [[1.0, 2.0], [3.0, 4.0]], "target": [0.5, 1.5]})
    inputs, targets = tensors(as_samples(table))
    assert inputs.tolist() == [[1, 2], [3, 4]]
    assert (targets.dtype, targets.tolist()) == (torch.float32, [0.5, 1.5])
    with pytest.raises(InvalidInputError, match="a transform of its own"):
        as_samples(table.with_transform(lambda rows: rows))
