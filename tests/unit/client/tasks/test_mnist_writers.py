from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from fedstep.client.tasks.mnist_writers import task
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo

REAL = Path(__file__).parents[4] / ".." / "shared" / "data" / "mnist_by_writer.npz"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """12 writers of 10 digits each; the first pixel of an image is its writer's number."""
    rng = np.random.default_rng(0)
    writers = np.repeat(np.arange(12, dtype=np.int32), 10)
    images = rng.integers(0, 256, (120, 28, 28), dtype=np.uint8)
    images[:, 0, 0] = writers
    path = tmp_path / "writers.npz"
    np.savez(path, images=images, labels=rng.integers(0, 10, 120, dtype=np.uint8), writer_ids=writers)
    return path


def options(path: Path, **more: str) -> Mapping[str, str]:
    return {"data": str(path), "writers": "9", "held_out_writers": "3", **more}


def load(path: Path, partition: tuple[int, int] | None = None, name: str = "ann", **more: str) -> ClientData:
    return task.load_data(ClientInfo(name, partition, options(path, **more)))


def writers_of(samples: object) -> list[int]:
    assert isinstance(samples, torch.utils.data.TensorDataset)
    return sorted({round(float(value) * 255) for value in samples.tensors[0][:, 0, 0, 0]})


def test_no_writer_is_both_trained_on_and_held_out(data: Path) -> None:
    shares = [load(data, (index, 4)) for index in range(4)]
    trained_on = [writer for share in shares for writer in writers_of(share.train)]
    held_out = writers_of(task.load_held_out(options(data)))
    assert sorted(trained_on + held_out) == list(range(12))
    assert [len(writers_of(share.train)) for share in shares] == [3, 2, 2, 2]


def test_a_client_without_a_partition_is_one_writer(data: Path) -> None:
    mine = load(data)
    [writer] = writers_of(mine.train)
    assert writers_of(load(data).train) == [writer]
    assert writer not in writers_of(task.load_held_out(options(data)))
    assert len({writers_of(load(data, name=str(number)).train)[0] for number in range(20)}) > 3


def test_samples_have_the_models_shape(data: Path) -> None:
    train = load(data, (0, 1)).train
    assert isinstance(train, torch.utils.data.TensorDataset)
    inputs, targets = train.tensors
    assert inputs.shape == (90 - 14, 1, 28, 28)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert task.build_model(task.defaults)(inputs[:2]).shape == (2, 10)


def test_fewer_writers_can_be_asked_for(data: Path) -> None:
    assert len(writers_of(load(data, (0, 1), writers="2").train)) == 2
    assert len(writers_of(load(data, (0, 1), writers="300").train)) == 9  # all there are


def test_the_coordinator_may_do_without_the_data() -> None:
    assert task.load_held_out({}) is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"writers": "many"}, "writers=many"),
        ({"writers": "0"}, "at least 1"),
        ({"held_out_writers": "12"}, "none of the 12 writers"),
    ],
)
def test_an_option_that_cannot_be_is_refused(data: Path, more: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        load(data, **more)


def test_more_shares_than_writers_are_refused(data: Path) -> None:
    with pytest.raises(InvalidInputError, match="9 writers cannot be split into 10 shares"):
        load(data, (0, 10))


def test_data_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--data PATH"):
        task.load_data(ClientInfo("ann"))
    with pytest.raises(InvalidInputError, match=r"none\.npz cannot be read \(No such file"):
        load(tmp_path / "none.npz")
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(InvalidInputError, match=r"text\.npz cannot be read"):
        load(text)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load(tmp_path)
    one_array = tmp_path / "one.npy"
    np.save(one_array, np.zeros(3))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load(one_array)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, images=np.array([{}]), labels=np.array([{}]), writer_ids=np.array([{}]))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load(pickled)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"images": np.zeros((2, 28, 28), np.uint8), "labels": np.zeros(2)}, "no array writer_ids"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.zeros(2), "writer_ids": np.zeros(2)}, r"\[2, 8, 8\]"),
        ({"images": np.zeros((2, 28, 28)), "labels": np.zeros(2), "writer_ids": np.zeros(2)}, "float64"),
        (
            {"images": np.zeros((2, 28, 28), np.uint8), "labels": np.array([1, 10]), "writer_ids": np.arange(2)},
            "outside 0 to 9",
        ),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=sentence):
        load(path)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/mnist_by_writer.npz is not here")
def test_the_real_writers_load() -> None:
    shares = [task.load_data(ClientInfo("x", (index, 300), {"data": str(REAL)})) for index in (0, 299)]
    for share in shares:
        assert isinstance(share.train, torch.utils.data.TensorDataset)
        assert 10 <= len(share.train) <= 131
    held_out = task.load_held_out({"data": str(REAL)})
    assert isinstance(held_out, torch.utils.data.TensorDataset)
    assert 4000 < len(held_out) < 8000


def test_a_misspelt_option_is_refused_with_the_nearest(data: Path) -> None:
    with pytest.raises(InvalidInputError, match="no option wrtiers: did you mean writers"):
        task.load_data(ClientInfo("a", (0, 2), options(data, wrtiers="3")))
