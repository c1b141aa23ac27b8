import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from unit.client.leaf_files import write_leaf

from fedstep.client.tasks.femnist import femnist, femnist_digits
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo

REAL = Path(__file__).parents[4] / ".." / "shared" / "data" / "leaf"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six writers of ten characters to train on, in two files, and their test sets of two each."""
    write_leaf(tmp_path / "train" / "all_data_0.json", {f"w{number}": 10 for number in range(4)}, classes=62)
    write_leaf(tmp_path / "train" / "all_data_1.json", {f"w{number}": 10 for number in (4, 5)}, classes=62, first=4)
    write_leaf(tmp_path / "test" / "all_data_0.json.gz", {f"w{number}": 2 for number in range(6)}, classes=62)
    return tmp_path


def options(data: Path, **more: str) -> Mapping[str, str]:
    return {"data": str(data), "cache": str(data / "cache"), **more}


def load(data: Path, partition: tuple[int, int] | None = None, name: str = "ann", **more: str) -> ClientData:
    return femnist.load_data(ClientInfo(name, partition, options(data, **more)))


def writers_of(share: ClientData) -> set[int]:
    return {int(value * 64) for samples in (share.train, share.validation) for value in tensors(samples)[0][:, 0, 0, 0]}


def tensors(samples: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(samples, torch.utils.data.TensorDataset)
    return samples.tensors


def test_one_writer_is_one_client(data: Path) -> None:
    with femnist.loading_many():
        shares = [load(data, (index, 6)) for index in range(6)]
    assert sorted(min(writers_of(share)) for share in shares) == list(range(6))
    for index, share in enumerate(shares):
        assert len(writers_of(share)) == 1
        assert [len(tensors(share.train)[0]), len(tensors(share.validation)[0])] == [6, 4]
        alone = load(data, (index, 6))  # as a process of its own would
        assert torch.equal(tensors(alone.train)[0], tensors(share.train)[0])


def test_fewer_clients_have_several_writers_and_fewer_writers_can_be_asked_for(data: Path) -> None:
    assert sorted(len(writers_of(load(data, (index, 4)))) for index in range(4)) == [1, 1, 2, 2]
    assert len(writers_of(load(data, (0, 1), writers="3"))) == 3


def test_a_client_without_a_partition_is_one_writer(data: Path) -> None:
    assert len(writers_of(load(data))) == 1
    assert writers_of(load(data)) == writers_of(load(data))
    assert len({min(writers_of(load(data, name=str(number)))) for number in range(20)}) > 2
    assert writers_of(load(data, group="w4")) == {4}


def test_writers_may_be_mixed_on_purpose(data: Path) -> None:
    assert len(writers_of(load(data, (0, 6), partitioner="iid"))) > 1


def test_the_test_files_are_held_out(data: Path) -> None:
    held_out = femnist.load_held_out(options(data))
    assert held_out is not None
    images, targets = tensors(held_out)
    assert images.shape == (12, 1, 28, 28)
    assert (images.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert femnist.load_held_out({}) is None
    assert femnist.load_held_out(options(data / "train")) is None


def test_a_folder_of_files_is_all_the_clients(data: Path) -> None:
    assert writers_of(load(data / "train", (0, 1))) == set(range(6))


def test_a_folder_may_have_no_test_files(data: Path) -> None:
    (data / "test").rename(data / "elsewhere")
    assert writers_of(load(data, (0, 1))) == set(range(6))
    assert femnist.load_held_out(options(data)) is None


def test_the_models_are_leafs(data: Path) -> None:
    images, _ = tensors(load(data, (0, 6)).train)
    for task, classes in ((femnist, 62), (femnist_digits, 10)):
        model = task.build_model(task.defaults)
        assert model(images[:2]).shape == (2, classes)
    assert sum(weights.numel() for weights in femnist.build_model({}).parameters()) == 6_603_710


def test_classes_that_are_not_said_are_refused(data: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"writer w\d in .* has the label \d\d, and 10 classes .* femnist for 62"
    ):
        femnist_digits.load_data(ClientInfo("ann", (0, 2), options(data)))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"writers": "7"}, "writers=7 is more than the 6"),
        ({"writers": "0"}, "at least 1"),
        ({"writer": "3"}, "no option writer: did you mean writers"),
        ({"group": "w9"}, "group=w9 is none of the 6 writers"),
        ({"group": "w9", "writers": "2"}, "none of the 2 writers"),
        ({"partitioner": "naturel"}, "did you mean natural"),
        ({"validation": "1"}, "from 0 to below 1"),
    ],
)
def test_an_option_that_cannot_be_is_refused(data: Path, more: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        load(data, **more)


def test_data_that_are_not_given_are_asked_for() -> None:
    with pytest.raises(InvalidInputError, match=r"femnist needs its data: .* with --data PATH"):
        femnist.load_data(ClientInfo("ann"))


def test_who_a_client_is_is_said_once(data: Path) -> None:
    with pytest.raises(InvalidInputError, match="group=w1 and --partition"):
        load(data, (0, 2), group="w1")


def test_more_clients_than_writers_are_refused(data: Path) -> None:
    with pytest.raises(InvalidInputError, match="6 writers cannot be split among 7 clients: have at most 6"):
        load(data, (0, 7))


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/leaf is not here")
def test_the_real_writers_load(tmp_path: Path) -> None:
    wanted = {"data": str(REAL), "cache": str(tmp_path)}
    with femnist_digits.loading_many():
        shares = [femnist_digits.load_data(ClientInfo("x", (index, 30), wanted)) for index in range(30)]
    sizes = [len(tensors(share.train)[0]) + len(tensors(share.validation)[0]) for share in shares]
    assert (sum(sizes), min(sizes), max(sizes)) == (3125, 89, 117)
    held_out = femnist_digits.load_held_out(wanted)
    assert held_out is not None
    images, targets = tensors(held_out)
    assert len(images) == 360
    assert images.min() == 0
    assert images.max() == 1
    assert images[:, 0, 0, 0].mean() > 0.99  # white paper
    assert set(targets.tolist()) == set(range(10))


def rewritten(data: Path, factor: float) -> None:
    """The training files again, with other pixels."""
    for file in (data / "train").iterdir():
        content = json.loads(file.read_text())
        for user in content["user_data"].values():
            user["x"] = [[factor * pixel for pixel in image] for image in user["x"]]
        file.write_text(json.dumps(content))


def test_pixels_from_0_to_255_are_scaled(data: Path) -> None:
    (as_leaf, _) = tensors(load(data, (1, 6)).train)
    rewritten(data, 255)
    (scaled, _) = tensors(load(data, (1, 6)).train)
    torch.testing.assert_close(scaled, as_leaf)


def test_pixels_are_scaled_alike_whoever_reads_them(data: Path) -> None:
    rewritten(data, 100)
    first = min((data / "train").iterdir())
    content = json.loads(first.read_text())
    for user in content["user_data"].values():
        user["x"] = [[pixel / 100 for pixel in image] for image in user["x"]]
    first.write_text(json.dumps(content))

    def light(index: int, of: int) -> float:
        share = load(data, (index, of))
        return sum(float(tensors(samples)[0].double().sum()) for samples in (share.train, share.validation))

    assert sum(light(index, 6) for index in range(6)) == pytest.approx(light(0, 1), rel=1e-6)


def test_what_rounding_makes_of_a_white_pixel_does_not_scale_the_others(data: Path) -> None:
    (as_leaf, _) = tensors(load(data, (1, 6)).train)
    rewritten(data, 1.0000001)
    (rounded, _) = tensors(load(data, (1, 6)).train)
    torch.testing.assert_close(rounded, as_leaf)


@pytest.mark.parametrize("factor", [-1, 1.5, 1000])
def test_what_is_no_pixel_is_refused(data: Path, factor: float) -> None:
    rewritten(data, factor)
    with pytest.raises(InvalidInputError, match=r"have pixels from .*: give them from 0 to 1"):
        load(data, (1, 6))
