"""The benchmarks' own tasks, on data made up for the test."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.study_file import read_study
from fedstep.common.task import ClientInfo, Samples
from fedstep.common.tasks import full_hyperparameters, load_task

BENCH = Path(__file__).parents[2] / "bench"


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.folder),))


def archive(path: Path, **batches: object) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in batches.items():
            body = pickle.dumps(content, protocol=3)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(body)
            file.addfile(member, io.BytesIO(body))
    return path


def batch(count: int, seed: int) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, count).tolist()}


def tensors(samples: Samples | None) -> tuple[torch.Tensor, ...]:
    assert isinstance(samples, TensorDataset)
    return samples.tensors


def test_cifar_is_dealt_without_overlap_and_its_test_batch_held_out(tmp_path: Path) -> None:
    data = archive(
        tmp_path / "c.tar.gz", data_batch_1=batch(150, 1), data_batch_2=batch(50, 2), test_batch=batch(30, 3)
    )
    task = load_task(str(BENCH / "cifar4k.py"))
    options = {"data": str(data)}
    shares = [task.load_data(ClientInfo(f"c{i}", (i, 5), options)) for i in range(5)]
    inputs = torch.cat([tensors(part)[0] for share in shares for part in (share.train, share.validation)])
    assert inputs.shape == (200, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in inputs}) == 200
    assert tensors(task.load_held_out(options))[0].shape == (30, 3, 32, 32)
    assert task.load_held_out({}) is None
    assert task.build_model(full_hyperparameters(task, {}))(inputs[:2]).shape == (2, 10)


def test_a_pickle_that_names_anything_but_arrays_is_refused(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "unpickled")
    data = archive(tmp_path / "evil.tar.gz", data_batch_1=evil, test_batch=batch(3, 0))
    task = load_task(str(BENCH / "cifar4k.py"))
    with pytest.raises(InvalidInputError, match=r"evil\.tar\.gz cannot be read \(it names \w+\.mkdir\)"):
        task.load_data(ClientInfo("c", (0, 2), {"data": str(data)}))
    assert not evil.folder.exists()


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_what_is_no_archive_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(content)
    task = load_task(str(BENCH / "cifar4k.py"))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        task.load_held_out({"data": str(tmp_path / "x.tar.gz")})


def test_writers_are_those_of_the_built_in_task_at_half_the_resolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    path = tmp_path / "w.npz"
    np.savez(path, images=images, labels=rng.integers(0, 10, 60, dtype=np.uint8), writer_ids=np.arange(60) // 10)
    options = {"data": str(path), "writers": "4", "held_out_writers": "2"}
    own, built_in = load_task(str(BENCH / "writers_mlp.py")), load_task("mnist-writers")
    client = ClientInfo("w", (1, 4), options)
    every = own.load_data(client)
    small, labels = tensors(every.train)
    assert tensors(every.validation)[0] is small  # whoever measures did not train in that round
    theirs = built_in.load_data(client)
    parts = [tensors(theirs.train), tensors(theirs.validation)]
    large, same_labels = (torch.cat(pair) for pair in zip(*parts, strict=True))
    assert torch.equal(labels, same_labels)
    blocks = large.reshape(-1, 14, 2, 14, 2).mean(dim=(2, 4)).reshape(len(large), 196)
    torch.testing.assert_close(small, (blocks - 0.1307) / 0.3081)  # MNIST's mean and deviation
    assert len(tensors(own.load_held_out(options))[0]) == 20
    assert own.build_model(full_hyperparameters(own, {}))(small).shape == (len(small), 10)


@pytest.mark.parametrize("name", ["real_writers", "mnist_writers", "cifar4k"])
def test_every_study_names_its_task_and_has_the_pilots_space(name: str) -> None:
    study = read_study(BENCH / "studies" / f"{name}.toml")
    own = {"writers-mlp": BENCH / "writers_mlp.py", "cifar4k": BENCH / "cifar4k.py"}
    assert load_task(str(own.get(study.task, study.task))).name == study.task
    assert len(study.space) == 7
    assert (study.round.cohort_size, study.evaluation.cohort_size) == (10, 20)
